// The C API, the C++ header and the seed's API over real sockets, against a conductor and a store
// in memory that run on a reactor thread of their own.
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>

#include "client/client_test.hpp"
#include "client/conductor_address.hpp"
#include "pf_client_api.h"
#include "pfbd.hpp"
#include "runtime/uring/reactor_thread.hpp"

namespace pf::client {

uint64_t allocations_of_this_thread();  // count_allocations_test.cpp

namespace {

using runtime::Task;

struct Servers {
    std::unique_ptr<net::Server> store;
    std::unique_ptr<net::Server> conductor;
};

class CApi : public ::testing::Test {
  public:
    CApi() {
        runtime::UringOptions options;
        options.register_arena = false;
        group = std::move(*runtime::ReactorGroup::start({options}));
        const uint16_t rpc_port = group->call(0, [this] {
            servers.store = std::move(*net::Server::listen({"127.0.0.1", 0}, store));
            servers.conductor = std::move(*net::Server::listen({"127.0.0.1", 0}, conductor));
            conductor.store_address = servers.store->local().text();
            return servers.conductor->local().port;
        });
        address = fmt::format("localhost:{}", rpc_port - conductor_rpc_from_http);
    }
    ~CApi() override {
        group->call(0, [this] { return stop(this); });
        group.reset();
    }
    static Task<bool> stop(CApi* test) {
        co_await test->servers.store->stop();
        co_await test->servers.conductor->stop();
        test->servers = {};
        co_return true;
    }
    pfbd_context* make_context(uint32_t flags, uint32_t depth = 0) const {
        pfbd_options options{};
        options.struct_bytes = sizeof(options);
        options.conductor = address.c_str();
        options.flags = flags;
        options.depth = depth;
        pfbd_context* context = nullptr;
        EXPECT_EQ(pfbd_context_create(&options, &context), 0) << pfbd_error_text();
        return context;
    }

    FakeTray tray;
    FakeStore store{tray};
    FakeConductor conductor{tray};
    std::unique_ptr<runtime::ReactorGroup> group;
    Servers servers;
    std::string address;
};

struct Waiting {
    std::atomic<int> left{0};
    std::atomic<int> worst{0};
    static void done(void* argument, int status) {
        auto* waiting = static_cast<Waiting*>(argument);
        if (status != 0) waiting->worst = status;
        --waiting->left;
        waiting->left.notify_all();
    }
    void wait() {
        for (int now = left; now > 0; now = left) left.wait(now);
    }
};

TEST_F(CApi, RunsOnAThreadOfItsOwn) {
    pfbd_context* context = make_context(0, 8);
    pfbd_volume* volume = nullptr;
    EXPECT_EQ(pfbd_open(context, "missing", 0, &volume), -ENOENT);
    EXPECT_NE(std::string(pfbd_error_text()).find("no such volume"), std::string::npos);
    ASSERT_EQ(pfbd_open(context, "v", 0, &volume), 0) << pfbd_error_text();
    pfbd_info info{};
    EXPECT_EQ(pfbd_get_info(volume, &info), 0);
    EXPECT_EQ(info.size_bytes, test_volume_bytes);
    EXPECT_EQ(info.shard_count, 3u);
    EXPECT_EQ(pfbd_volume_exists(context, "v"), 1);
    EXPECT_EQ(pfbd_refresh(volume), 0);

    const auto bytes = pattern(8192, 1);
    EXPECT_EQ(pfbd_pwrite(volume, bytes.data(), 8192, 4096), 0);
    std::vector<std::byte> back(8192);
    EXPECT_EQ(pfbd_pread(volume, back.data(), 8192, 4096), 0);
    EXPECT_TRUE(back == bytes);

    EXPECT_EQ(pfbd_write(volume, bytes.data(), 100, 0, &Waiting::done, nullptr), -EINVAL);
    EXPECT_EQ(pfbd_write(volume, bytes.data(), 512, test_volume_bytes, &Waiting::done, nullptr),
              -ERANGE);
    Waiting waiting;
    for (uint64_t i = 0; i < 200; ++i) {
        ++waiting.left;
        const int accepted =
            pfbd_write(volume, bytes.data(), 4096, i * 4096, &Waiting::done, &waiting);
        if (accepted == 0) continue;
        EXPECT_EQ(accepted, -EAGAIN);
        --waiting.left;
        waiting.wait();
        --i;
    }
    // All depth may be taken by the writes: then there is no callback, and it is asked again.
    ++waiting.left;
    while (pfbd_flush(volume, &Waiting::done, &waiting) == -EAGAIN) {
        --waiting.left;
        waiting.wait();
        ++waiting.left;
    }
    waiting.wait();
    EXPECT_EQ(waiting.worst, 0);
    std::vector<iovec> vectors(16);
    for (size_t i = 0; i < 16; ++i) vectors[i] = {back.data() + i * 512, 512};
    ++waiting.left;
    EXPECT_EQ(pfbd_readv(volume, vectors.data(), 16, 0, &Waiting::done, &waiting), 0);
    vectors.clear();
    waiting.wait();
    EXPECT_EQ(std::memcmp(back.data(), bytes.data(), 4096), 0);
    pfbd_extent extents[4];
    uint32_t count = 4;
    ++waiting.left;
    EXPECT_EQ(
        pfbd_block_states(volume, test_volume_bytes, 0, extents, &count, &Waiting::done, &waiting),
        0);
    waiting.wait();
    EXPECT_EQ(count, 2u);
    EXPECT_EQ(extents[0].length_bytes, 200u * 4096);
    ++waiting.left;
    EXPECT_EQ(pfbd_compare_and_write(volume, bytes.data() + 4096, bytes.data(), 4096, 0,
                                     &Waiting::done, &waiting),
              0);
    waiting.wait();
    EXPECT_EQ(waiting.worst, -ECANCELED);
    // The volume is left to the context.
    pfbd_context_destroy(context);
    EXPECT_EQ(conductor.closed.load(), 1u);
}

TEST_F(CApi, BlockStatesTakeASlotAsOtherIoDoesAndEndBeforeTheVolume) {
    constexpr int depth = 4;
    for (const uint32_t flags : {0u, uint32_t{PFBD_CALLER_THREAD}}) {
        store.hold_states = true;
        pfbd_context* context = make_context(flags, depth);
        pfbd_volume* volume = nullptr;
        ASSERT_EQ(pfbd_open(context, "v", 0, &volume), 0) << pfbd_error_text();
        pfbd_extent extents[depth][4];
        uint32_t counts[depth];
        Waiting waiting;
        waiting.left = depth;
        const auto ask = [&](int i) {
            counts[i] = 4;
            return pfbd_block_states(volume, test_volume_bytes, 0, extents[i], &counts[i],
                                     &Waiting::done, &waiting);
        };
        for (int i = 0; i < depth; ++i) EXPECT_EQ(ask(i), 0);
        EXPECT_EQ(
            pfbd_block_states(volume, 4096, 0, extents[0], &counts[0], &Waiting::done, &waiting),
            -EAGAIN);
        EXPECT_EQ(pfbd_flush(volume, &Waiting::done, &waiting), -EAGAIN);
        store.hold_states = false;
        EXPECT_EQ(pfbd_close(volume), 0);
        EXPECT_EQ(waiting.left, 0) << "an answer came after the close, or never";
        pfbd_context_destroy(context);
    }
}

// Closing answers every I/O, and a callback that then tries again kept it from ending.
struct Stubborn {
    pfbd_volume* volume = nullptr;
    std::vector<std::byte> memory = std::vector<std::byte>(4096);
    std::atomic<int> last{0};
    static void done(void* argument, int) {
        auto& self = *static_cast<Stubborn*>(argument);
        self.last = self.start();
    }
    int start() { return pfbd_read(volume, memory.data(), 4096, 0, &Stubborn::done, this); }
};
TEST_F(CApi, regression_a_callback_that_tries_again_does_not_hold_up_the_close) {
    for (const uint32_t flags : {0u, uint32_t{PFBD_CALLER_THREAD}}) {
        pfbd_context* context = make_context(flags);
        Stubborn stubborn;
        ASSERT_EQ(pfbd_open(context, "v", 0, &stubborn.volume), 0) << pfbd_error_text();
        EXPECT_EQ(stubborn.start(), 0);
        EXPECT_EQ(pfbd_close(stubborn.volume), 0);
        EXPECT_EQ(stubborn.last, -ESHUTDOWN);
        pfbd_context_destroy(context);
    }
}

// Lengths that add up to a small one modulo 2^64 were sent, and failed, again and again.
TEST_F(CApi, regression_vectors_that_overflow_are_refused) {
    pfbd_context* context = make_context(0);
    pfbd_volume* volume = nullptr;
    ASSERT_EQ(pfbd_open(context, "v", 0, &volume), 0) << pfbd_error_text();
    std::byte memory[512];
    constexpr size_t half = size_t{1} << 63;
    const iovec vectors[] = {{memory, half}, {memory, half + 4096}};
    EXPECT_EQ(pfbd_writev(volume, vectors, 2, 0, &Waiting::done, nullptr), -EINVAL);
    EXPECT_EQ(pfbd_readv(volume, vectors, 2, 0, &Waiting::done, nullptr), -EINVAL);
    pfbd_context_destroy(context);
}

TEST_F(CApi, regression_a_refused_pwrite_has_its_own_text) {
    pfbd_context* context = make_context(0);
    pfbd_volume* volume = nullptr;
    EXPECT_EQ(pfbd_open(context, "missing", 0, &volume), -ENOENT);
    ASSERT_EQ(pfbd_open(context, "v", PFBD_READ_ONLY, &volume), 0) << pfbd_error_text();
    std::byte memory[4096] = {};
    const auto text_has = [](const char* words) {
        return std::string(pfbd_error_text()).find(words) != std::string::npos;
    };
    EXPECT_EQ(pfbd_pwrite(volume, memory, 4096, 0), -EROFS);
    EXPECT_TRUE(text_has("read-only")) << pfbd_error_text();
    EXPECT_EQ(pfbd_pread(volume, memory, 4096, test_volume_bytes), -ERANGE);
    EXPECT_TRUE(text_has("beyond")) << pfbd_error_text();
    EXPECT_EQ(pfbd_pread(volume, memory, 100, 0), -EINVAL);
    EXPECT_TRUE(text_has("512")) << pfbd_error_text();
    pfbd_context_destroy(context);
}

// Was multiplied beyond 64 bits, and did not wait.
TEST_F(CApi, regression_a_poll_may_wait_for_ever) {
    group->call(0, [this] {
        store.delay_max = 20 * runtime::milliseconds;
        return true;
    });
    pfbd_context* context = make_context(PFBD_CALLER_THREAD);
    pfbd_volume* volume = nullptr;
    ASSERT_EQ(pfbd_open(context, "v", 0, &volume), 0) << pfbd_error_text();
    std::byte memory[4096];
    for (const int64_t timeout_us : {int64_t{1} << 61, int64_t{1} << 62, INT64_MAX}) {
        Waiting waiting;
        waiting.left = 1;
        EXPECT_EQ(pfbd_read(volume, memory, 4096, 0, &Waiting::done, &waiting), 0);
        int polls = 0;
        for (; waiting.left > 0 && polls < 100; ++polls) pfbd_poll(context, timeout_us);
        EXPECT_EQ(waiting.left, 0) << "it did not wait";
    }
    pfbd_context_destroy(context);
}

// Where ::1 comes first for this name, nothing was found: servers listen on 127.0.0.1.
TEST(ConductorAddress, regression_localhost_is_not_looked_up) {
    const auto found = conductor_address("localhost:100");
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->host, "localhost");
    EXPECT_EQ(found->port, 100 + conductor_rpc_from_http);
}

// The process was ended.
TEST_F(CApi, regression_too_little_room_is_an_error) {
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_AS, &before), 0);
    pfbd_options options{};
    options.struct_bytes = sizeof(options);
    options.conductor = address.c_str();
    options.buffer_bytes = uint64_t{64} << 30;
    for (const uint32_t flags : {0u, uint32_t{PFBD_CALLER_THREAD}}) {
        options.flags = flags;
        pfbd_context* context = nullptr;
        // Sanitizers have terabytes already.
        uint64_t pages = 0;
        std::ifstream("/proc/self/statm") >> pages;
        const rlimit little{pages * block_bytes + (uint64_t{8} << 30), before.rlim_max};
        ASSERT_EQ(::setrlimit(RLIMIT_AS, &little), 0);
        const int made = pfbd_context_create(&options, &context);
        ASSERT_EQ(::setrlimit(RLIMIT_AS, &before), 0);
        EXPECT_EQ(made, -ENOBUFS);
        EXPECT_NE(std::string(pfbd_error_text()).find("no room for 65536 MiB"), std::string::npos)
            << pfbd_error_text();
        EXPECT_EQ(context, nullptr);
    }
}

struct Loop {
    pfbd_volume* volume = nullptr;
    const std::byte* memory = nullptr;
    std::byte* to = nullptr;
    uint64_t started = 0;
    uint64_t finished = 0;
    uint64_t limit = 0;
    static void done(void* argument, int status) {
        auto& loop = *static_cast<Loop*>(argument);
        EXPECT_EQ(status, 0);
        ++loop.finished;
        loop.start();
    }
    void start() {
        if (started == limit) return;
        const uint64_t offset = (started * 7919 % 2000) * 4096;
        const int accepted = ++started % 2 == 0
                                 ? pfbd_read(volume, to, 4096, offset, &Loop::done, this)
                                 : pfbd_write(volume, memory, 4096, offset, &Loop::done, this);
        EXPECT_EQ(accepted, 0);
    }
};

TEST_F(CApi, RunsOnTheCallersThreadWithoutAllocating) {
    pfbd_context* context = make_context(PFBD_CALLER_THREAD, 32);
    const auto bytes = pattern(4096, 1);
    std::vector<std::byte> to(4096);
    Loop loop;
    ASSERT_EQ(pfbd_open(context, "v", 0, &loop.volume), 0) << pfbd_error_text();
    loop.memory = bytes.data();
    loop.to = to.data();
    loop.limit = 2000;
    for (int i = 0; i < 32; ++i) loop.start();
    while (loop.finished < loop.limit) pfbd_poll(context, 1'000'000);
    const uint64_t before = allocations_of_this_thread();
    loop.limit = 6000;
    for (int i = 0; i < 32; ++i) loop.start();
    while (loop.finished < loop.limit) pfbd_poll(context, 1'000'000);
    EXPECT_EQ(allocations_of_this_thread() - before, 0u) << "no allocation per I/O";
    EXPECT_EQ(pfbd_close(loop.volume), 0);
    pfbd_context_destroy(context);
}

// What needs no server is called back in the turn before the wait: then there is nothing to wait
// for. Failed: pfbd_poll(context, -1) slept for ever, and fio with it at any sync.
TEST_F(CApi, PollReturnsAfterACallbackThatNeedsNoServer) {
    pfbd_context* context = make_context(PFBD_CALLER_THREAD);
    pfbd_volume* volume = nullptr;
    ASSERT_EQ(pfbd_open(context, "v", 0, &volume), 0) << pfbd_error_text();
    for (const auto call : {+[](pfbd_volume* of, Waiting* waiting) {
                                return pfbd_flush(of, &Waiting::done, waiting);
                            },
                            +[](pfbd_volume* of, Waiting* waiting) {
                                return pfbd_discard(of, 512, 512, &Waiting::done, waiting);
                            }}) {
        Waiting waiting;
        ++waiting.left;
        ASSERT_EQ(call(volume, &waiting), 0);
        while (waiting.left > 0) pfbd_poll(context, -1);
    }
    EXPECT_EQ(pfbd_close(volume), 0);
    pfbd_context_destroy(context);
}

TEST_F(CApi, GivesADescriptorToPollOn) {
    pfbd_context* context = make_context(PFBD_CALLER_THREAD);
    pfbd_volume* volume = nullptr;
    ASSERT_EQ(pfbd_open(context, "v", 0, &volume), 0) << pfbd_error_text();
    pollfd descriptor{pfbd_poll_fd(context), POLLIN, 0};
    ASSERT_GE(descriptor.fd, 0);
    std::vector<std::byte> to(4096);
    for (int i = 0; i < 50; ++i) {
        Waiting waiting;
        ++waiting.left;
        EXPECT_EQ(pfbd_read(volume, to.data(), 4096, 0, &Waiting::done, &waiting), 0);
        while (waiting.left > 0) {
            ASSERT_EQ(::poll(&descriptor, 1, 5000), 1);
            pfbd_poll(context, 0);
        }
    }
    pfbd_context_destroy(context);
}

// What waiting functions say inside a callback.
struct WaitsInside {
    pfbd_context* context = nullptr;
    pfbd_volume* volume = nullptr;
    std::vector<std::byte> to = std::vector<std::byte>(4096);
    std::vector<int> answers;
    Waiting* waiting = nullptr;
    static void done(void* argument, int status) {
        auto& self = *static_cast<WaitsInside*>(argument);
        pfbd_volume* other = nullptr;
        self.answers = {pfbd_pread(self.volume, self.to.data(), 4096, 0),
                        pfbd_pwrite(self.volume, self.to.data(), 4096, 0),
                        pfbd_open(self.context, "v", 0, &other),
                        pfbd_refresh(self.volume),
                        pfbd_volume_exists(self.context, "v"),
                        pfbd_close(self.volume)};
        pfbd_context_destroy(self.context);
        Waiting::done(self.waiting, status);
    }
    void check() const {
        EXPECT_EQ(answers, std::vector<int>(6, -EDEADLK));
        EXPECT_EQ(waiting->left, 0);
        EXPECT_EQ(waiting->worst, 0);
    }
};

TEST_F(CApi, AWaitingCallInsideACallbackIsRefusedOnTheLibrarysThread) {
    Waiting waiting;
    WaitsInside inside;
    inside.waiting = &waiting;
    inside.context = make_context(0);
    ASSERT_EQ(pfbd_open(inside.context, "v", 0, &inside.volume), 0) << pfbd_error_text();
    waiting.left = 1;
    ASSERT_EQ(pfbd_flush(inside.volume, &WaitsInside::done, &inside), 0);
    waiting.wait();
    inside.check();
    // Nothing was ended in there.
    EXPECT_EQ(pfbd_pread(inside.volume, inside.to.data(), 4096, 0), 0);
    pfbd_context_destroy(inside.context);
}

// The callbacks come while another call waits: inside pfbd_pread, pfbd_open and pfbd_close.
TEST_F(CApi, AWaitingCallInsideACallbackInsideAWaitingCallIsRefused) {
    Waiting waiting;
    WaitsInside inside;
    inside.waiting = &waiting;
    inside.context = make_context(PFBD_CALLER_THREAD);
    ASSERT_EQ(pfbd_open(inside.context, "v", 0, &inside.volume), 0) << pfbd_error_text();
    waiting.left = 1;
    std::vector<std::byte> to(4096);
    const auto start = [&] {
        inside.answers.clear();
        waiting.left = 1;
        EXPECT_EQ(pfbd_read(inside.volume, to.data(), 4096, 0, &WaitsInside::done, &inside), 0);
    };
    start();
    EXPECT_EQ(pfbd_pread(inside.volume, to.data(), 4096, 0), 0);
    while (waiting.left > 0) pfbd_poll(inside.context, 1'000'000);
    inside.check();
    start();
    pfbd_volume* second = nullptr;
    EXPECT_EQ(pfbd_open(inside.context, "v", PFBD_READ_ONLY, &second), 0) << pfbd_error_text();
    while (waiting.left > 0) pfbd_poll(inside.context, 1'000'000);
    inside.check();
    start();
    EXPECT_EQ(pfbd_close(inside.volume), 0);  // waits for the read
    inside.check();
    pfbd_context_destroy(inside.context);
}

TEST(CApiWithoutACluster, SaysWhatIsWrong) {
    pfbd_options options{};
    options.struct_bytes = sizeof(options);
    options.conductor = "127.0.0.1:1";
    pfbd_context* context = nullptr;
    ASSERT_EQ(pfbd_context_create(&options, &context), 0);
    pfbd_volume* volume = nullptr;
    EXPECT_EQ(pfbd_open(context, "v", 0, &volume), -ENOTCONN);
    EXPECT_NE(std::string(pfbd_error_text()).find("cannot reach the conductor"), std::string::npos)
        << pfbd_error_text();
    EXPECT_EQ(pfbd_open(context, "a/b", 0, &volume), -EINVAL);
    pfbd_context_destroy(context);
    options.conductor = "nonsense";
    EXPECT_EQ(pfbd_context_create(&options, &context), -EINVAL);
    options.conductor = nullptr;
    options.depth = 5000;
    EXPECT_EQ(pfbd_context_create(&options, &context), -EINVAL);
}

// A coroutine type as a program may have it.
struct Fire {
    struct promise_type {
        Fire get_return_object() { return {}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
};

Fire use_volume(pfbd::Volume& volume, Waiting& waiting) {
    const auto bytes = pattern(4096, 9);
    int status = co_await volume.write(bytes.data(), 4096, 8192);
    EXPECT_EQ(status, 0);
    std::vector<std::byte> back(4096);
    status = co_await volume.read(back.data(), 4096, 8192);
    EXPECT_EQ(status, 0);
    EXPECT_TRUE(back == bytes);
    status = co_await volume.discard(4096, 8192);
    EXPECT_EQ(status, 0);
    status = co_await volume.flush();
    EXPECT_EQ(status, 0);
    status = co_await volume.write(bytes.data(), 4095, 0);
    EXPECT_EQ(status, -EINVAL);
    Waiting::done(&waiting, 0);
}

TEST_F(CApi, CoroutinesAwaitVolumes) {
    pfbd::Options options;
    options.conductor = address;
    pfbd::Context context(options);
    EXPECT_THROW(pfbd::Volume(context, "missing"), pfbd::Error);
    pfbd::Volume volume(context, "v");
    Waiting waiting;
    waiting.left = 1;
    use_volume(volume, waiting);
    waiting.wait();
    EXPECT_EQ(volume.info().replicas, 1u);
}

// A program as it was written for the seed's client API.
TEST_F(CApi, ProgramsForTheSeedsApiRun) {
    const std::string file = testing::TempDir() + "pf_seed_api." + std::to_string(::getpid());
    std::ofstream(file) << "[cluster]\nname=cluster1\n[zookeeper]\nip=127.0.0.1:2181\n[conductor]\n"
                        << "address = " << address << " ; where\n[client]\nconn_type=tcp\n"
                        << "io_depth=16\n";
    ::unsetenv("PF_CONDUCTOR");
    EXPECT_EQ(pf_open_volume("v", file.c_str(), nullptr, 1), nullptr) << "another version";
    PfClientVolume* volume = pf_open_volume("v", file.c_str(), nullptr, S5_LIB_VER);
    ASSERT_NE(volume, nullptr) << pfbd_error_text();
    EXPECT_EQ(pf_get_volume_size(volume), test_volume_bytes);
    const auto bytes = pattern(8192, 4);
    std::vector<std::byte> back(8192);
    Waiting waiting;
    waiting.left = 1;
    EXPECT_EQ(pf_io_submit_write(volume, const_cast<std::byte*>(bytes.data()), 8192, 4096,
                                 &Waiting::done, &waiting),
              0);
    waiting.wait();
    const iovec vectors[] = {{back.data(), 512}, {back.data() + 512, 7680}};
    waiting.left = 1;
    EXPECT_EQ(pf_iov_submit(volume, vectors, 2, 8192, 4096, &Waiting::done, &waiting, 0), 0);
    waiting.wait();
    EXPECT_EQ(waiting.worst, 0);
    EXPECT_TRUE(back == bytes);
    EXPECT_EQ(pf_iov_submit(volume, vectors, 2, 256u << 10, 0, &Waiting::done, &waiting, 0),
              -EINVAL);
    EXPECT_EQ(pf_io_submit_read(volume, back.data(), 100, 0, &Waiting::done, &waiting), -EINVAL);
    const iovec wrapping[] = {{back.data(), size_t{1} << 63},
                              {back.data(), (size_t{1} << 63) + 4096}};
    EXPECT_EQ(pf_iov_submit(volume, wrapping, 2, 4096, 0, &Waiting::done, &waiting, 0), -EINVAL);
    // Closing from a callback is refused and ends nothing.
    struct Closing {
        PfClientVolume* volume;
        Waiting waiting;
        static void done(void* argument, int status) {
            auto& self = *static_cast<Closing*>(argument);
            pf_close_volume(self.volume);
            Waiting::done(&self.waiting, status);
        }
    } closing{volume, {}};
    closing.waiting.left = 1;
    EXPECT_EQ(pf_io_submit_read(volume, back.data(), 4096, 0, &Closing::done, &closing), 0);
    closing.waiting.wait();
    EXPECT_EQ(closing.waiting.worst, 0);
    pf_close_volume(volume);
    PfClientVolumeInfo info{};
    EXPECT_EQ(pf_query_volume_info("v", file.c_str(), nullptr, S5_LIB_VER, &info), 0);
    EXPECT_EQ(info.volume_size, test_volume_bytes);
    EXPECT_STREQ(info.volume_name, "v");
    PfClientVolume* half = pf_half_open_volume("v", file.c_str(), nullptr, 0);
    ASSERT_NE(half, nullptr);
    EXPECT_EQ(pf_get_volume_size(half), test_volume_bytes);
    pf_close_volume(half);
    EXPECT_EQ(pf_create_tenant("t", file.c_str()), 0);
    EXPECT_NE(pf_rename_volume("v", "w", file.c_str()), 0) << "this conductor does not rename";
    EXPECT_NE(pf_delete_volume("v", "/nonexistent.conf"), 0);
    EXPECT_NE(std::string(show_ver()), "");
}

}  // namespace
}  // namespace pf::client
