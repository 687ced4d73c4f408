#include "net/rpc.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/crc32c.hpp"
#include "net/two_buffers.hpp"

namespace pf::net {

using runtime::Buffer;
using runtime::Task;

namespace {

constexpr size_t max_error_text = 2048;

std::vector<uint32_t> block_crcs(Bytes data) {
    std::vector<uint32_t> crcs;
    for (; !data.empty(); data = data.subspan(std::min<size_t>(data.size(), block_bytes)))
        crcs.push_back(crc32c(data.first(std::min<size_t>(data.size(), block_bytes))));
    return crcs;
}

// A call outlives its caller's patience: the channel fills it in whenever the answer comes.
struct Call {
    explicit Call(std::string bytes) : sent(std::move(bytes)), crcs(block_crcs(as_bytes(sent))) {
        request.command.opcode = wire::Opcode::rpc;
        request.command.length = static_cast<uint32_t>(sent.size());
        data = {sent.data(), sent.size()};
        if (!sent.empty()) request.data = {&data, 1};
        request.crcs = crcs;
    }

    struct RpcRequest : Request {
        std::string received;
        iovec room{};
    };
    static std::span<const iovec> make_room(Request& request, uint32_t bytes) {
        auto& self = static_cast<RpcRequest&>(request);
        self.received.resize(bytes);
        self.room = {self.received.data(), bytes};
        return {&self.room, 1};
    }

    std::string sent;
    std::vector<uint32_t> crcs;
    iovec data{};
    RpcRequest request;
    bool done = false;
    std::coroutine_handle<> waiter;
};
using SharedCall = std::shared_ptr<Call>;

Task<void> run_call(ClientChannel& channel, SharedCall call) {
    call->request.make_room = &Call::make_room;
    co_await channel.call(call->request);
    call->done = true;
    if (call->waiter) runtime::schedule(std::exchange(call->waiter, nullptr));
}

// Waits until the call is done or the time is up.
class DoneOrTimeout : public runtime::Timer {
  public:
    DoneOrTimeout(Call& call, runtime::Nanos timeout)
        : Timer(&DoneOrTimeout::on_fire), call_(call), timeout_(timeout) {}
    ~DoneOrTimeout() { call_.waiter = nullptr; }

    bool await_ready() const noexcept { return call_.done; }
    void await_suspend(std::coroutine_handle<> waiter) {
        call_.waiter = waiter;
        runtime::Reactor& reactor = runtime::Reactor::current();
        const runtime::Nanos now = reactor.now();
        reactor.timers().arm(*this,
                             timeout_ > runtime::never - now ? runtime::never : now + timeout_);
    }
    void await_resume() const noexcept {}

  private:
    static void on_fire(Timer& timer) {
        auto& self = static_cast<DoneOrTimeout&>(timer);
        if (self.call_.waiter) runtime::schedule(std::exchange(self.call_.waiter, nullptr));
    }

    Call& call_;
    runtime::Nanos timeout_;
};

Result<std::string> result_of(Call& call) {
    Call::RpcRequest& request = call.request;
    if (request.outcome == Errc::disconnected)
        return fail(Errc::disconnected, "the connection ended before the answer came");
    if (request.outcome != Errc::ok) return fail(request.outcome, "the answer came damaged");
    if (request.completion.status != 0)
        return fail(static_cast<Errc>(request.completion.status), std::move(request.received));
    return std::move(request.received);
}

}  // namespace

Task<Result<std::string>> rpc_call(ClientChannel& channel, std::string request,
                                   runtime::Nanos timeout) {
    if (request.size() > wire::max_rpc_bytes)
        co_return fail(Errc::resource_exhausted, fmt::format("an rpc of {} bytes, allowed is {}",
                                                             request.size(), wire::max_rpc_bytes));
    const auto call = std::make_shared<Call>(std::move(request));
    runtime::Reactor::current().spawn(run_call(channel, call));
    DoneOrTimeout wait(*call, timeout);
    co_await wait;
    if (!call->done) co_return fail(Errc::timed_out, "no answer in time, the outcome is unknown");
    co_return result_of(*call);
}

namespace {

void send_reply(ServerChannel& channel, const wire::Command& command, Errc status,
                std::string_view bytes, Buffer data, Buffer crcs_memory) {
    Reply reply;
    reply.completion.status = static_cast<uint16_t>(status);
    if (!bytes.empty()) {
        std::memcpy(data.data(), bytes.data(), bytes.size());
        reply.data = std::move(data);
        reply.data_length = static_cast<uint32_t>(bytes.size());
        const auto crcs = block_crcs(as_bytes(bytes));
        std::ranges::copy(
            crcs,
            reply.make_crcs(std::move(crcs_memory), static_cast<uint32_t>(crcs.size())).begin());
    }
    channel.reply(command, std::move(reply));
}

// Waits for memory; the channel stays valid, because its command is not answered yet.
Task<void> reply_when_there_is_memory(ServerChannel& channel, wire::Command command, Errc status,
                                      std::string bytes) {
    const uint32_t pieces = wire::blocks_touched(0, bytes.size());
    const size_t table_bytes =
        pieces > Incoming::inline_crcs ? size_t{pieces} * sizeof(uint32_t) : 0;
    Buffer data;
    Buffer crcs;
    co_await allocate_two(runtime::Reactor::current().buffers(), bytes.size(), table_bytes, data,
                          crcs);
    send_reply(channel, command, status, bytes, std::move(data), std::move(crcs));
}

}  // namespace

void rpc_reply(ServerChannel& channel, const wire::Command& command, Result<std::string> result) {
    Errc status = Errc::ok;
    std::string bytes;
    if (result && result->size() > wire::max_rpc_bytes) {
        status = Errc::resource_exhausted;
        bytes = fmt::format("an rpc answer of {} bytes, allowed is {}", result->size(),
                            wire::max_rpc_bytes);
    } else if (result) {
        bytes = std::move(*result);
    } else {
        status = result.error().code;
        bytes = std::move(result.error().message);
        if (bytes.size() > max_error_text) bytes.resize(max_error_text);
    }
    if (bytes.empty()) {
        send_reply(channel, command, status, {}, {}, {});
        return;
    }
    runtime::Reactor::current().spawn(
        reply_when_there_is_memory(channel, command, status, std::move(bytes)));
}

std::string_view rpc_request(const Incoming& incoming) {
    return {reinterpret_cast<const char*>(incoming.data.data()), incoming.command.length};
}

}  // namespace pf::net
