// No allocation per I/O in steady state: counts every call of the global operator new while disk,
// socket, timer and posted work goes on after a warm-up.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "runtime/sync.hpp"
#include "runtime/uring/uring_test.hpp"

namespace {
std::atomic<uint64_t> allocations{0};

void* counted(size_t bytes, size_t alignment) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (memory == nullptr) std::abort();
    return memory;
}
}  // namespace

[[gnu::noinline]] void* operator new(size_t bytes) {
    return counted(bytes, alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new[](size_t bytes) {
    return counted(bytes, alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new(size_t bytes, std::align_val_t alignment) {
    return counted(bytes, static_cast<size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete[](void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete[](void* memory, size_t) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t, std::align_val_t) noexcept {
    std::free(memory);
}

namespace pf::runtime {
namespace {

constexpr uint32_t depth = 32;

struct Load {
    Disk& disk;
    Connection& client;
    Connection& server;
    WaitGroup running;
};

Task<void> transfer(Load& load, uint64_t block) {
    Buffer buffer = co_await Reactor::current().buffers().allocate(4096);
    auto written = co_await load.disk.write(block * 4096, buffer.bytes());
    EXPECT_TRUE(written);
    auto read = co_await load.disk.read(block * 4096, buffer.bytes());
    EXPECT_TRUE(read);
    co_await end_of_turn();
    load.running.done();
}

Task<void> receive_some(Load& load, size_t bytes) {
    Buffer buffer = co_await Reactor::current().buffers().allocate(bytes);
    for (size_t got = 0; got < bytes;) {
        auto received = co_await load.server.receive(buffer.bytes().subspan(got));
        EXPECT_TRUE(received);
        if (!received) break;
        got += *received;
    }
    load.running.done();
}

struct PostedDone : PostedCall {
    Load* load = nullptr;
};

Task<void> one_round(Load& load) {
    Reactor& reactor = Reactor::current();
    for (uint32_t i = 0; i < depth; ++i) {
        load.running.add();
        reactor.spawn(transfer(load, i));
    }
    constexpr size_t pieces = 16;
    constexpr size_t piece_bytes = 4096;
    load.running.add(2);
    reactor.spawn(receive_some(load, pieces * piece_bytes));
    PostedDone posted;
    posted.load = &load;
    posted.run = [](PostedCall& base) { static_cast<PostedDone&>(base).load->running.done(); };
    reactor.post(posted);
    Buffer buffer = co_await reactor.buffers().allocate(pieces * piece_bytes);
    iovec vectors[pieces];
    for (size_t i = 0; i < pieces; ++i) vectors[i] = {buffer.data() + i * piece_bytes, piece_bytes};
    auto sent = co_await load.client.send(vectors, pieces);
    EXPECT_TRUE(sent);
    auto flushed = co_await load.disk.flush();
    EXPECT_TRUE(flushed);
    co_await sleep_for(100 * microseconds);
    co_await load.running.wait();
}

TEST(UringAllocation, SteadyStateAllocatesNothing) {
    TestReactor test;
    TestPath path;
    test.run([&](UringReactor& reactor) -> Task<void> {
        DiskOptions options;
        options.create_bytes = uint64_t{1} << 20;
        auto disk = co_await reactor.open_disk(path.text(), options);
        CO_ASSERT(disk);
        const Address any{"127.0.0.1", 0};
        auto listener = reactor.listen(any);
        CO_ASSERT(listener);
        auto client = co_await reactor.connect((*listener)->local(), seconds);
        CO_ASSERT(client);
        auto server = co_await (*listener)->accept();
        CO_ASSERT(server);
        Load load{**disk, **client, **server, {}};
        for (int i = 0; i < 20; ++i) co_await one_round(load);
        const uint64_t before = allocations.load();
        for (int i = 0; i < 100; ++i) co_await one_round(load);
        EXPECT_EQ(allocations.load() - before, 0u);
    });
}

}  // namespace
}  // namespace pf::runtime
