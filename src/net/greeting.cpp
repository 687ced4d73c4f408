#include "net/greeting.hpp"

#include "net/deadline.hpp"

namespace pf::net {

using runtime::Connection;
using runtime::Task;

namespace {

using Header = std::array<std::byte, wire::header_bytes>;

Task<Status> receive_header(Connection& connection, Header& bytes) {
    Deadline deadline(connection);
    runtime::Reactor& reactor = runtime::Reactor::current();
    reactor.timers().arm(deadline, reactor.now() + hello_timeout);
    for (size_t have = 0; have < bytes.size();) {
        const Result<size_t> received =
            co_await connection.receive(MutableBytes(bytes).subspan(have));
        if (deadline.expired()) co_return fail(Errc::timed_out, "no hello within 5 s");
        PF_CO_TRY(received);
        if (*received == 0) co_return fail(Errc::disconnected);
        have += *received;
        // Another protocol may never send 64 bytes.
        if (have >= sizeof(uint64_t) && load<uint64_t>(Bytes(bytes)) != wire::hello_magic) break;
    }
    co_return Status{};
}

}  // namespace

Task<Result<wire::Hello>> receive_hello(Connection& connection) {
    Header bytes{};
    Task<Status> receiving = receive_header(connection, bytes);
    PF_CO_TRY(co_await receiving);
    Result<wire::Hello> hello = wire::decode_hello(bytes);
    // An answer makes sense only to a peer that speaks the protocol.
    if (!hello && hello.error().code != Errc::protocol) {
        wire::HelloReply refusal;
        refusal.status = static_cast<uint16_t>(hello.error().code);
        wire::encode(refusal, bytes);
        const Status sent = co_await connection.send(Bytes(bytes));
        static_cast<void>(sent);  // the refusal itself is what is reported
    }
    co_return hello;
}

}  // namespace pf::net
