// How connections end, and partitions.
#include <algorithm>

#include "runtime/sim/sim_connection.hpp"
#include "runtime/sim/sim_network.hpp"
#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {

// ---- Ending

void SimNetwork::shut_down(uint64_t id, unsigned side) {
    SimLink* link = find(id);
    if (link == nullptr) return;
    SimPipe& mine = link->pipes[side];
    SimPipe& theirs = link->pipes[1 - side];
    if (mine.send_error == 0) push_segment(*link, side, SimPipe::Segment::Kind::end, 0);
    mine.send_error = theirs.receive_error = ESHUTDOWN;
    finish(link->holder[side], mine.send, -ESHUTDOWN);
    finish(link->holder[side], theirs.receive, -ESHUTDOWN);
    discard_arrived(*link, 1 - side);
}

void SimNetwork::release(uint64_t id, unsigned side) {
    SimLink* link = find(id);
    if (link == nullptr || link->holder[side] == nullptr) return;
    PF_ASSERT(link->pipes[side].send == nullptr && link->pipes[1 - side].receive == nullptr);
    shut_down(id, side);
    link->holder[side] = nullptr;
    collect(id);
}

void SimNetwork::break_link(SimLink& link, int error) {
    ++resets_;
    simulation_.trace(TraceKind::reset, link.id, static_cast<uint64_t>(error), 0);
    for (unsigned side = 0; side < 2; ++side) {
        SimPipe& pipe = link.pipes[side];
        pipe.segments.clear();
        pipe.bytes.clear();
        pipe.first = pipe.arrived = 0;
        pipe.stalled = false;
        if (pipe.send_error == 0) pipe.send_error = error;
        if (pipe.receive_error == 0) pipe.receive_error = error;
        finish(link.holder[side], pipe.send, -pipe.send_error);
        finish(link.holder[1 - side], pipe.receive, -pipe.receive_error);
    }
}

// The process that held `side` is gone.
void SimNetwork::leave(SimLink& link, unsigned side, bool power_lost) {
    SimPipe& mine = link.pipes[side];
    SimPipe& theirs = link.pipes[1 - side];
    mine.send = nullptr;
    theirs.receive = nullptr;
    link.holder[side] = nullptr;
    const bool was_open = mine.send_error == 0;
    mine.send_error = theirs.receive_error = ECONNRESET;
    discard_arrived(link, 1 - side);
    if (!was_open) return;
    if (power_lost) {
        return schedule(simulation_.now() + model_.keepalive, EventKind::keepalive, link.id, side);
    }
    // The last of what was on the way may be lost.
    if (!mine.stalled && !mine.segments.empty() && simulation_.rng().below(2) == 0) {
        const size_t kept = 1 + simulation_.rng().below(mine.segments.size());
        while (mine.segments.size() > kept) {
            mine.bytes.resize(mine.bytes.size() - mine.segments.back().bytes);
            mine.segments.pop_back();
        }
    }
    push_segment(link, side, SimPipe::Segment::Kind::reset, 0);
}

// The peer of `side`, whose machine lost power, sends a keepalive probe: a machine that is up again
// answers with a reset, silence ends the connection later.
void SimNetwork::probe(SimLink& link, unsigned side) {
    const SimPipe& pipe = link.pipes[side];
    if (link.holder[1 - side] == nullptr || link.pipes[1 - side].send_error != 0) return;
    const bool silent = !simulation_.node(pipe.from).powered() || blocked(pipe.to, pipe.from) ||
                        blocked(pipe.from, pipe.to);
    if (!silent) return push_segment(link, side, SimPipe::Segment::Kind::reset, 0);
    break_link(link, ETIMEDOUT);
}

void SimNetwork::collect(uint64_t id) {
    const SimLink* link = find(id);
    if (link != nullptr && link->holder[0] == nullptr && link->holder[1] == nullptr) {
        links_.erase(id);
    }
}

void SimNetwork::forget(SimReactor& reactor, bool power_lost) {
    std::erase_if(listeners_, [&](const auto& entry) {
        SimListener& listener = *entry.second;
        if (&listener.reactor_ != &reactor) return false;
        // A test may hold the object longer than the process lives.
        listener.shut_ = true;
        listener.backlog_.clear();
        return true;
    });
    std::erase_if(connecting_, [&](const auto& entry) { return entry.second.reactor == &reactor; });
    std::vector<uint64_t> left;
    for (const auto& [id, link] : links_) {
        for (unsigned side = 0; side < 2; ++side) {
            if (link->holder[side] != &reactor) continue;
            leave(*link, side, power_lost);
            left.push_back(id);
        }
    }
    for (const uint64_t id : left) collect(id);
}

// ---- Partitions

bool SimNetwork::blocked(uint32_t from, uint32_t to) const {
    return !blocked_.empty() && blocked_.contains({from, to});
}

void SimNetwork::block(const SimNode& from, const SimNode& to) {
    blocked_.insert({from.id(), to.id()});
}

void SimNetwork::unblock(const SimNode& from, const SimNode& to) {
    blocked_.erase({from.id(), to.id()});
    unstall();
}

void SimNetwork::partition(const SimNode& a, const SimNode& b) {
    block(a, b);
    block(b, a);
}

void SimNetwork::heal(const SimNode& a, const SimNode& b) {
    unblock(a, b);
    unblock(b, a);
}

void SimNetwork::heal_all() {
    blocked_.clear();
    corrupt_next_.clear();
    unstall();
}

// Bytes that waited are sent again after another delay.
void SimNetwork::unstall() {
    for (const auto& [id, link] : links_) {
        for (unsigned side = 0; side < 2; ++side) {
            SimPipe& pipe = link->pipes[side];
            if (!pipe.stalled || blocked(pipe.from, pipe.to)) continue;
            if (!simulation_.node(pipe.to).powered()) continue;
            pipe.stalled = false;
            const Nanos again = simulation_.now() + model_.delay.draw(simulation_.rng());
            for (auto& segment : pipe.segments) segment.arrival = std::max(segment.arrival, again);
            schedule_first(*link, side);
        }
    }
}

size_t SimNetwork::reset_connections(const SimNode& a, const SimNode& b) {
    size_t count = 0;
    for (const auto& [id, link] : links_) {
        const auto [from, to] = std::minmax(link->pipes[0].from, link->pipes[0].to);
        if (std::minmax(a.id(), b.id()) != std::pair<const uint32_t&, const uint32_t&>(from, to)) {
            continue;
        }
        break_link(*link, ECONNRESET);
        ++count;
    }
    return count;
}

void SimNetwork::corrupt_next(const SimNode& from, const SimNode& to, uint32_t sends) {
    corrupt_next_[{from.id(), to.id()}] += sends;
}

}  // namespace pf::runtime::sim
