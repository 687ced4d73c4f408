// Over real sockets: the whole way works there too, and once warm an I/O allocates nothing.
#include <gtest/gtest.h>

#include "base/crc32c.hpp"
#include "net/channel.hpp"
#include "runtime/frame_pool.hpp"
#include "runtime/uring/uring_reactor.hpp"

// Counts every use of the general allocator (allocation_count_test.cpp).
extern uint64_t allocations;

namespace pf::net {
namespace {

using runtime::Task;

class Echo : public Handler {
  public:
    Status on_hello(ServerChannel&, const wire::Hello&, wire::HelloReply&) override { return {}; }
    void on_disconnect(ServerChannel&) override {}
    Task<void> on_command(ServerChannel& channel, Incoming incoming) override {
        Reply reply;
        if (incoming.command.opcode == wire::Opcode::read) {
            const uint32_t length = incoming.command.length;
            reply.data = co_await runtime::Reactor::current().buffers().allocate(length);
            std::memset(reply.data.data(), 7, length);
            reply.data_length = length;
            runtime::Buffer memory;
            const uint32_t count = wire::blocks_touched(incoming.command.offset, length);
            if (count > Incoming::inline_crcs)
                memory = co_await runtime::Reactor::current().buffers().allocate(size_t{4} * count);
            const auto crcs = reply.make_crcs(std::move(memory), count);
            for (uint32_t i = 0; i < count; ++i)
                crcs[i] = crc32c({reply.data.data() + size_t{i} * 4096, 4096});
        }
        reply.completion.status =
            static_cast<uint16_t>(incoming.payload_ok ? Errc::ok : Errc::bad_payload);
        channel.reply(incoming.command, std::move(reply));
    }
};

struct Io {
    explicit Io(uint32_t bytes) : memory(bytes, std::byte{7}) {
        vector = {memory.data(), bytes};
        for (uint32_t at = 0; at < bytes; at += 4096)
            crcs.push_back(crc32c({memory.data() + at, 4096}));
    }
    void prepare(wire::Opcode opcode) {
        request.command.opcode = opcode;
        request.command.length = static_cast<uint32_t>(memory.size());
        const bool sends = opcode == wire::Opcode::write;
        request.data = sends ? std::span<const iovec>(&vector, 1) : std::span<const iovec>();
        request.crcs = sends ? std::span<const uint32_t>(crcs) : std::span<const uint32_t>();
        request.into = std::span<const iovec>(&vector, 1);
    }
    Request request;
    std::vector<std::byte> memory;
    std::vector<uint32_t> crcs;
    iovec vector{};
};

Task<void> loop(ClientChannel& channel, Io& io, int rounds, runtime::WaitGroup& group) {
    for (int round = 0; round < rounds; ++round) {
        io.prepare(round % 2 == 0 ? wire::Opcode::write : wire::Opcode::read);
        co_await channel.call(io.request);
        EXPECT_EQ(io.request.outcome, Errc::ok);
        EXPECT_EQ(io.request.completion.status, 0);
    }
    group.done();
}

Task<void> all(ClientChannel& channel, std::vector<std::unique_ptr<Io>>& ios, int rounds) {
    runtime::WaitGroup group;
    group.add(ios.size());
    for (auto& io : ios) runtime::Reactor::current().spawn(loop(channel, *io, rounds, group));
    co_await group.wait();
}

Task<void> measure(runtime::UringReactor& reactor, uint32_t bytes, size_t depth) {
    Echo echo;
    auto server = Server::listen({"127.0.0.1", 0}, echo);
    PF_ASSERT(server.has_value());
    ClientOptions options;
    options.depth = static_cast<uint16_t>(depth);
    auto connecting = ClientChannel::connect((*server)->local(), options);
    auto channel = co_await connecting;
    PF_ASSERT(channel.has_value());
    std::vector<std::unique_ptr<Io>> ios(depth);
    for (auto& io : ios) io = std::make_unique<Io>(bytes);
    co_await all(**channel, ios, 20);
    const uint64_t before = allocations;
    const uint64_t frames_before = runtime::frames_allocated();
    co_await all(**channel, ios, 20);
    EXPECT_EQ(allocations - before, 0u);
    EXPECT_EQ(runtime::frames_allocated() - frames_before, 0u);
    co_await (*channel)->close();
    co_await (*server)->stop();
    reactor.stop();
}

void run(uint32_t bytes, size_t depth) {
    runtime::UringOptions options;
    options.register_arena = false;
    auto reactor = runtime::UringReactor::create(options);
    ASSERT_TRUE(reactor.has_value()) << reactor.error().text();
    (*reactor)->spawn(measure(**reactor, bytes, depth));
    (*reactor)->run();
}

TEST(SteadyState, SmallIoAllocatesNothing) {
    run(4096, 128);
}
TEST(SteadyState, LargeIoAllocatesNothing) {
    run(1u << 20, 8);
}

}  // namespace
}  // namespace pf::net
