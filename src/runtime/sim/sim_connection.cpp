#include "runtime/sim/sim_connection.hpp"

#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {

namespace {

bool means_self(const std::string& host) {
    return host.empty() || host == "127.0.0.1" || host == "0.0.0.0" || host == "localhost" ||
           host == "::1" || host == "::";
}

}  // namespace

// ---- Listening

Result<std::unique_ptr<Listener>> SimNetwork::listen(SimReactor& reactor, const Address& address) {
    SimNode& node = reactor.node();
    if (!means_self(address.host) && address.host != node.name()) {
        return fail(Errc::invalid_argument,
                    address.text() + " is not an address of " + node.name());
    }
    Address local{node.name(), address.port};
    while (local.port == 0) {
        if (!listeners_.contains({node.id(), next_port_})) local.port = next_port_;
        next_port_ = next_port_ == UINT16_MAX ? uint16_t{32768} : uint16_t(next_port_ + 1);
    }
    const Port port{node.id(), local.port};
    if (listeners_.contains(port)) return fail(Errc::busy, local.text() + " is in use");
    auto listener = std::make_unique<SimListener>(*this, reactor, std::move(local));
    listeners_[port] = listener.get();
    return listener;
}

SimListener::~SimListener() {
    shut_down();
}

void SimListener::shut_down() {
    if (shut_) return;
    shut_ = true;
    const SimNetwork::Port port{reactor_.node().id(), local_.port};
    const auto found = network_.listeners_.find(port);
    if (found != network_.listeners_.end() && found->second == this) {
        network_.listeners_.erase(found);
        for (const Waiting& waiting : backlog_) network_.release(waiting.link, 1);
        waiters_.wake_all();
    }
    backlog_.clear();
}

Task<Result<std::unique_ptr<Connection>>> SimListener::accept() {
    while (backlog_.empty() && !shut_) co_await waiters_.wait();
    if (shut_) co_return fail(Errc::cancelled);
    Waiting waiting = std::move(backlog_.front());
    backlog_.pop_front();
    std::unique_ptr<Connection> connection =
        std::make_unique<SimConnection>(network_, waiting.link, 1u, std::move(waiting.peer));
    co_return connection;
}

void SimNetwork::wake_listener(uint32_t node, uint16_t port) {
    const auto found = listeners_.find({node, port});
    if (found != listeners_.end()) found->second->waiters_.wake_one();
}

// ---- Connecting

uint64_t SimNetwork::start_connect(ConnectAwaiter& awaiter, SimReactor& reactor,
                                   const Address& address, Nanos timeout) {
    const uint64_t request = next_request_++;
    SimNode& node = reactor.node();
    const SimNode* target = means_self(address.host) ? &node : simulation_.find_node(address.host);
    simulation_.trace(TraceKind::connect, node.id(), request, address.port);
    const int planned = node.count_operation();
    const uint32_t to = target == nullptr ? node.id() : target->id();
    connecting_[request] = {&awaiter, &reactor, node.id(), to, address.port};
    if (planned != 0 || target == nullptr) {
        finish_connect(request, planned != 0 ? planned : EHOSTUNREACH);
        return request;
    }
    const Nanos now = simulation_.now();
    schedule(now + model_.delay.draw(simulation_.rng()), EventKind::connect_arrives, request);
    if (timeout < never - now) schedule(now + timeout, EventKind::timeout, request);
    return request;
}

void SimNetwork::connect_arrives(uint64_t request) {
    const auto found = connecting_.find(request);
    if (found == connecting_.end() || found->second.done) return;
    Connecting& connecting = found->second;
    if (blocked(connecting.from, connecting.to) || !simulation_.node(connecting.to).powered()) {
        return;  // until the timeout
    }
    Rng& rng = simulation_.rng();
    const Nanos answer = simulation_.now() + model_.delay.draw(rng);
    const auto listener = listeners_.find({connecting.to, connecting.port});
    const bool refused = model_.refuse_ppm > 0 && rng.chance_ppm(model_.refuse_ppm);
    if (listener == listeners_.end() || refused ||
        listener->second->backlog_.size() >= SimListener::max_backlog) {
        return schedule(answer, EventKind::refused, request);
    }
    auto link = std::make_unique<SimLink>();
    link->id = next_link_++;
    link->pipes[0].from = link->pipes[1].to = connecting.from;
    link->pipes[0].to = link->pipes[1].from = connecting.to;
    link->holder[0] = connecting.reactor;
    link->holder[1] = &listener->second->reactor_;
    connecting.link = link->id;
    const auto port = static_cast<uint16_t>(49152 + link->id % 16384);
    listener->second->backlog_.push_back(
        {link->id, Address{simulation_.node(connecting.from).name(), port}});
    listener->second->reactor_.arrived_for_listener(connecting.port);
    links_.emplace(link->id, std::move(link));
    schedule(answer, EventKind::connect_answer, request);
}

void SimNetwork::answer_connect(uint64_t request) {
    const auto found = connecting_.find(request);
    if (found == connecting_.end()) return;
    // A blocked answer is lost: the attempt times out.
    if (blocked(found->second.to, found->second.from)) return;
    finish_connect(request, 0);
}

void SimNetwork::finish_connect(uint64_t request, int error) {
    const auto found = connecting_.find(request);
    if (found == connecting_.end() || found->second.done) return;
    Connecting& connecting = found->second;
    connecting.done = true;
    connecting.awaiter->error_ = error;
    if (error != 0 && connecting.link != 0) release(std::exchange(connecting.link, 0), 0);
    simulation_.trace(TraceKind::connected, connecting.from, request, static_cast<uint64_t>(error));
    connecting.reactor->arrived_for_connect(request);
}

void SimNetwork::resume_connect(uint64_t request) {
    const auto found = connecting_.find(request);
    if (found == connecting_.end()) return;
    ConnectAwaiter& awaiter = *found->second.awaiter;
    pf::runtime::schedule(awaiter.waiter_);
}

uint64_t SimNetwork::take_connected(uint64_t request) {
    const auto found = connecting_.find(request);
    PF_ASSERT(found != connecting_.end() && found->second.link != 0);
    return std::exchange(found->second.link, 0);
}

void SimNetwork::cancel_connect(uint64_t request) {
    const auto found = connecting_.find(request);
    if (found == connecting_.end()) return;
    const uint64_t link = found->second.link;
    connecting_.erase(found);
    if (link != 0) release(link, 0);
}

Result<std::unique_ptr<Listener>> SimReactor::listen(const Address& address) {
    return node_.simulation().network().listen(*this, address);
}

Task<Result<std::unique_ptr<Connection>>> SimReactor::connect(Address address, Nanos timeout) {
    SimNetwork& network = node_.simulation().network();
    ConnectAwaiter attempt(network, *this, address, timeout);
    const int error = co_await attempt;
    if (error != 0) co_return fail(from_errno(error));
    std::unique_ptr<Connection> connection =
        std::make_unique<SimConnection>(network, attempt.take_link(), 0u, address);
    co_return connection;
}

void SimReactor::handle(const Arrival& arrival) {
    SimNetwork& network = node_.simulation().network();
    switch (arrival.kind) {
        case Arrival::Kind::disk: {
            auto& op = *static_cast<DiskOp*>(arrival.object);
            return op.complete(op);
        }
        case Arrival::Kind::stream: {
            auto& op = *static_cast<StreamOp*>(arrival.object);
            return op.complete(op);
        }
        case Arrival::Kind::call: {
            auto& call = *static_cast<PostedCall*>(arrival.object);
            return call.run(call);
        }
        case Arrival::Kind::listener:
            return network.wake_listener(node_.id(), static_cast<uint16_t>(arrival.number));
        case Arrival::Kind::connect:
            return network.resume_connect(arrival.number);
    }
}

}  // namespace pf::runtime::sim
