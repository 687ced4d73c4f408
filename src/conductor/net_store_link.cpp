#include "conductor/net_store_link.hpp"

#include <fmt/format.h>

#include "net/rpc.hpp"

namespace pf::conductor {

using runtime::Task;

Task<Result<v1::RpcReply>> NetStoreLink::call(std::string address, v1::RpcRequest request,
                                              runtime::Nanos timeout) {
    if (closing_) co_return fail(Errc::cancelled, "the conductor is stopping");
    calls_.add();
    Result<v1::RpcReply> reply = co_await exchange(std::move(address), std::move(request), timeout);
    calls_.done();
    co_return reply;
}

Task<Result<v1::RpcReply>> NetStoreLink::exchange(std::string address, v1::RpcRequest request,
                                                  runtime::Nanos timeout) {
    Result<Channel> channel = co_await connect(std::move(address));
    if (!channel) co_return std::unexpected<Error>(channel.error());
    std::string bytes = request.SerializeAsString();
    const Result<std::string> answer = co_await net::rpc_call(**channel, std::move(bytes), timeout);
    if (!answer) co_return std::unexpected<Error>(answer.error());
    v1::RpcReply reply;
    if (!reply.ParseFromString(*answer)) {
        co_return fail(Errc::protocol, "the store's answer is not a known message");
    }
    co_return reply;
}

Task<Result<NetStoreLink::Channel>> NetStoreLink::connect(std::string address) {
    Peer& peer = peers_[address];  // a map: the reference stays good
    const uint64_t failures_before = peer.failures;
    co_await peer.connecting.lock();
    Channel channel = peer.channel;
    if (channel && !channel->connected()) {
        peer.channel = nullptr;
        co_await channel->close();
        channel = nullptr;
    }
    Result<Channel> result = channel;
    if (!channel && closing_) {
        result = fail(Errc::cancelled, "the conductor is stopping");
    } else if (!channel && peer.failures != failures_before) {
        // It failed while this call waited for it: another attempt would take as long again.
        result = std::unexpected<Error>(peer.last_failure);
    } else if (!channel) {
        net::ClientOptions options;
        options.role = wire::Role::conductor;
        options.depth = 16;
        const Result<runtime::Address> parsed = runtime::Address::parse(address);
        if (!parsed) {
            result = std::unexpected<Error>(parsed.error());
        } else {
            auto made = co_await net::ClientChannel::connect(*parsed, options);
            if (made) {
                peer.channel = Channel(std::move(*made));
                result = peer.channel;
            } else {
                ++peer.failures;
                peer.last_failure = {made.error().code,
                                     fmt::format("{}: {}", address, made.error().text())};
                result = std::unexpected<Error>(peer.last_failure);
            }
        }
    }
    peer.connecting.unlock();
    co_return result;
}

Task<void> NetStoreLink::close() {
    closing_ = true;
    for (auto& [address, peer] : peers_) {
        co_await peer.connecting.lock();
        const Channel channel = std::exchange(peer.channel, nullptr);
        peer.connecting.unlock();
        if (channel) co_await channel->close();
    }
    co_await calls_.wait();
}

}  // namespace pf::conductor
