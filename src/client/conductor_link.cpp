#include "client/conductor_link.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/ports.hpp"
#include "net/rpc.hpp"

namespace pf::client {

using pureflash::v1::RpcReply;
using pureflash::v1::RpcRequest;
using runtime::Task;

namespace {
constexpr runtime::Nanos shortest_pause = 100 * runtime::milliseconds;
constexpr runtime::Nanos longest_pause = 5 * runtime::seconds;
constexpr uint16_t rpc_depth = 16;
}  // namespace

// People know the conductor by its HTTP port.
Error ConductorLink::unreachable(const Error& why) const {
    runtime::Address http = address_;
    http.port = static_cast<uint16_t>(http.port - conductor_rpc_from_http);
    return {why.code, fmt::format("cannot reach the conductor {}, whose RPC port is {}: {}; is it "
                                  "running there? If not, start it or give another address",
                                  http.text(), address_.port,
                                  why.message.empty() ? describe(why.code) : why.message)};
}

Task<Status> ConductorLink::connect() {
    auto channel = co_await connected();
    if (!channel) co_return std::unexpected(std::move(channel).error());
    co_return Status{};
}

// Who waited while an attempt failed takes its error: with a silent host each takes seconds.
Task<Result<ConductorLink::ChannelPtr>> ConductorLink::connected() {
    const uint64_t failures_before = failures_;
    co_await connecting_.lock();
    Result<ChannelPtr> made = channel_;
    if (channel_ == nullptr || !channel_->connected()) {
        if (failures_ != failures_before) {
            made = std::unexpected(last_failure_);
        } else {
            made = co_await connect_again();
            if (!made) {
                ++failures_;
                last_failure_ = made.error();
            }
        }
    }
    connecting_.unlock();
    co_return made;
}

Task<Result<ConductorLink::ChannelPtr>> ConductorLink::connect_again() {
    if (channel_ != nullptr) {
        ChannelPtr old = std::move(channel_);
        channel_ = nullptr;
        co_await old->close();
    }
    if (closing_) co_return fail(Errc::cancelled, "the cluster is being closed");
    net::ClientOptions options;
    options.role = wire::Role::client;
    options.depth = rpc_depth;
    auto made = co_await net::ClientChannel::connect(address_, options);
    if (!made) co_return std::unexpected(unreachable(made.error()));
    channel_ = ChannelPtr(std::move(*made));
    ++generation_;
    // Calls only need the connection; handles must hear of it too.
    wake_.wake_all();
    co_return channel_;
}

Task<Result<RpcReply>> ConductorLink::call(RpcRequest request, runtime::Nanos timeout) {
    runtime::Reactor& reactor = runtime::Reactor::current();
    const runtime::Nanos deadline = reactor.now() + timeout;
    auto channel = co_await connected();
    if (!channel) co_return std::unexpected(std::move(channel).error());
    std::string bytes;
    if (!request.SerializeToString(&bytes))
        co_return fail(Errc::internal, "an RPC request cannot be serialized");
    net::ClientChannel& using_channel = **channel;
    const uint64_t answers_before = answers_;
    const runtime::Nanos left = deadline - std::min(deadline, reactor.now());
    if (left == 0) co_return fail(Errc::timed_out, "connecting took all the time there was");
    auto answer = co_await net::rpc_call(using_channel, std::move(bytes), left);
    const bool silent = reactor.now() >= deadline && answers_ == answers_before;
    if (!answer && answer.error().code == Errc::timed_out && silent) {
        // Calls would pile up behind those that are never answered.
        co_await using_channel.close();
    } else {
        ++answers_;
    }
    if (!answer) co_return std::unexpected(std::move(answer).error());
    RpcReply reply;
    if (!reply.ParseFromString(*answer))
        co_return fail(Errc::protocol, "the conductor's reply cannot be parsed");
    co_return reply;
}

void ConductorLink::add(Handle& handle) {
    handles_.push_back(handle);
    handle.generation_ = generation_;
    if (!keeping_) {
        keeping_ = true;
        runtime::Reactor::current().spawn(keep_connected());
    } else {
        wake_.wake_all();
    }
}

// While handles are open: notices that the connection went, makes it again and announces them.
Task<void> ConductorLink::keep_connected() {
    uint32_t failures = 0;
    while (!closing_) {
        if (handles_.empty()) {
            co_await wake_.wait();
            continue;
        }
        auto channel = co_await connected();
        if (!channel) {
            if (closing_) break;
            const runtime::Nanos duration = runtime::backoff(
                runtime::Reactor::current().rng(), failures++, shortest_pause, longest_pause);
            co_await pause_.wait(duration);
            continue;
        }
        failures = 0;
        co_await announce_all();
        co_await (*channel)->wait_disconnected();
    }
    keeping_ = false;
    kept_.set();
}

Task<void> ConductorLink::announce_all() {
    // Handles may come and go while one is being announced, so each round begins at the front.
    for (;;) {
        Handle* stale = handles_.front();
        while (stale != nullptr && stale->generation_ == generation_) stale = handles_.next(*stale);
        if (stale == nullptr) co_return;
        stale->generation_ = generation_;
        co_await stale->announce();
    }
}

Task<void> ConductorLink::close() {
    closing_ = true;
    pause_.end();
    wake_.wake_all();
    co_await connecting_.lock();
    if (channel_ != nullptr) {
        ChannelPtr old = std::move(channel_);
        channel_ = nullptr;
        co_await old->close();
    }
    connecting_.unlock();
    if (keeping_) co_await kept_.wait();
}

}  // namespace pf::client
