#include "store/conductor_link.hpp"

#include "base/log.hpp"
#include "net/rpc.hpp"

namespace pf::pfs {

using runtime::Nanos;
using runtime::Task;
namespace v1 = pureflash::v1;

void ConductorLink::start(runtime::Reactor& reactor) {
    started_ = true;
    reactor.spawn(run());
}

Task<void> ConductorLink::stop() {
    if (!started_) co_return;
    pause_.end();
    Task<void> finished = finished_.wait();
    co_await finished;
}

Task<void> ConductorLink::run() {
    Nanos pause = first_pause;
    std::string reported;
    while (!pause_.ended()) {
        Task<Status> serving = serve();
        const Status ended = co_await serving;
        const bool was_up = std::exchange(registered_, false);
        if (was_up) pause = first_pause;
        const std::string reason = ended ? "" : ended.error().text();
        // Once per reason: a conductor that is away for a day fills no log.
        if (!ended && reason != reported && !pause_.ended()) {
            log_warning("conductor {}: {}; trying again", conductor_.text(), reason);
        }
        reported = was_up ? "" : reason;
        const Nanos jitter = runtime::Reactor::current().rng().below(pause / 4 + 1);
        co_await pause_.wait(pause + jitter);
        pause = std::min(2 * pause, longest_pause);
    }
    finished_.set();
}

// One connection from its beginning to its end.
Task<Status> ConductorLink::serve() {
    net::ClientOptions options;
    options.role = wire::Role::store;
    options.depth = 4;
    Task<Result<std::unique_ptr<net::ClientChannel>>> connecting =
        net::ClientChannel::connect(conductor_, options);
    PF_CO_TRY_ASSIGN(std::unique_ptr<net::ClientChannel> channel, co_await connecting);
    Task<Status> talk = converse(*channel);
    Status ended = co_await talk;
    Task<void> closing = channel->close();
    co_await closing;
    co_return ended;
}

Task<Status> ConductorLink::converse(net::ClientChannel& channel) {
    v1::RpcRequest hello;
    Task<v1::RegisterStoreRequest> describing = owner_.registration();
    *hello.mutable_register_store() = co_await describing;
    Task<Result<v1::RpcReply>> registering = call(channel, hello, call_timeout);
    PF_CO_TRY_ASSIGN(v1::RpcReply welcome, co_await registering);
    if (!welcome.has_register_store()) co_return fail(Errc::protocol, "not a registration reply");
    const Nanos interval =
        std::clamp<uint64_t>(welcome.register_store().heartbeat_ms(), 50, 60'000) *
        runtime::milliseconds;
    Task<Status> adopting = owner_.registered(welcome.register_store());
    PF_CO_TRY(co_await adopting);
    log_info("registered with the conductor {}", conductor_.text());
    registered_ = true;
    while (true) {
        const bool stopping = pause_.ended();
        v1::RpcRequest beat;
        Task<v1::HeartbeatRequest> reporting = owner_.heartbeat();
        *beat.mutable_heartbeat() = co_await reporting;
        beat.mutable_heartbeat()->set_stopping(stopping);
        const Nanos timeout = stopping ? runtime::seconds : call_timeout;
        Task<Result<v1::RpcReply>> beating = call(channel, beat, timeout);
        PF_CO_TRY_ASSIGN(v1::RpcReply reply, co_await beating);
        if (stopping) co_return Status{};
        if (reply.heartbeat().register_again()) {
            co_return fail(Errc::unavailable, "the conductor asks to register again");
        }
        co_await pause_.wait(interval);
    }
}

Task<Result<v1::RpcReply>> ConductorLink::call(net::ClientChannel& channel, v1::RpcRequest request,
                                               Nanos timeout) {
    Task<Result<std::string>> calling =
        net::rpc_call(channel, request.SerializeAsString(), timeout);
    PF_CO_TRY_ASSIGN(const std::string bytes, co_await calling);
    v1::RpcReply reply;
    if (!reply.ParseFromString(bytes)) co_return fail(Errc::protocol, "the reply is no RpcReply");
    co_return reply;
}

}  // namespace pf::pfs
