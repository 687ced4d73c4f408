// What both reactors share: tasks, the ready queue, timers, waiting, buffers and addresses. Driven
// by the simulator, so time is virtual and every run is the same.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/sim/simulation.hpp"
#include "runtime/sync.hpp"

namespace pf::runtime {
namespace {

class RuntimeTest : public ::testing::Test {
  protected:
    RuntimeTest() { node_.start(); }

    void run(Task<void> task) { ASSERT_TRUE(sim_.run_task(node_, std::move(task))); }

    sim::Simulation sim_{sim::SimOptions{.seed = 1, .buffer_bytes = 4 << 20}};
    sim::SimNode& node_ = sim_.add_node("a");
};

Task<int> immediate(int value) {
    co_return value;
}

Task<int> later(int value) {
    co_await yield();
    co_return value;
}

Task<int> sum_to(int depth) {
    if (depth == 0) co_return co_await later(0);
    const int below = co_await sum_to(depth - 1);
    co_return below + depth;
}

TEST_F(RuntimeTest, TasksReturnValuesAtOnceAndLater) {
    run([]() -> Task<void> {
        const int now = co_await immediate(3);
        EXPECT_EQ(now, 3);
        const int soon = co_await later(4);
        EXPECT_EQ(soon, 4);
        const int deep = co_await sum_to(1000);
        EXPECT_EQ(deep, 500'500);
    }());
}

TEST_F(RuntimeTest, ATaskThatIsNeverAwaitedNeverRuns) {
    bool ran = false;
    {
        const auto task = [](bool& flag) -> Task<void> {
            flag = true;
            co_return;
        }(ran);
    }
    EXPECT_FALSE(ran);
}

TEST_F(RuntimeTest, ManyImmediateChildrenDoNotGrowTheStack) {
    run([]() -> Task<void> {
        int total = 0;
        for (int i = 0; i < 200'000; ++i) total += co_await immediate(1);
        EXPECT_EQ(total, 200'000);
    }());
}

struct Tracked {
    explicit Tracked(int& count) : count_(count) { ++count_; }
    Tracked(const Tracked&) = delete;
    Tracked& operator=(const Tracked&) = delete;
    ~Tracked() { --count_; }
    int& count_;
};

Task<void> hold_forever(int& count, WaitQueue& queue, int depth) {
    const Tracked tracked(count);
    if (depth > 0) {
        co_await hold_forever(count, queue, depth - 1);
    } else {
        co_await queue.wait();
    }
}

TEST_F(RuntimeTest, DestroyingASuspendedTaskDestroysWhatItAwaits) {
    int alive = 0;
    WaitQueue queue;
    node_.reactor().spawn(hold_forever(alive, queue, 5));
    EXPECT_EQ(alive, 6);
    EXPECT_FALSE(queue.empty());
    node_.kill();
    EXPECT_EQ(alive, 0);
    EXPECT_TRUE(queue.empty());
}

TEST_F(RuntimeTest, ReadyCoroutinesRunInTheOrderTheyBecameReady) {
    std::vector<int> order;
    for (int i = 0; i < 4; ++i) {
        node_.reactor().spawn([](std::vector<int>& to, int id) -> Task<void> {
            for (int round = 0; round < 3; ++round) {
                to.push_back(id);
                co_await yield();
            }
        }(order, i));
    }
    sim_.run_until_idle();
    EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}));
}

TEST_F(RuntimeTest, TheEndOfTheTurnComesAfterEverythingReady) {
    std::string order;
    node_.reactor().spawn([](std::string& to) -> Task<void> {
        co_await end_of_turn();
        to += 'e';
    }(order));
    node_.reactor().spawn([](std::string& to) -> Task<void> {
        for (int i = 0; i < 3; ++i) {
            co_await yield();
            to += 'r';
        }
    }(order));
    sim_.run_until_idle();
    EXPECT_EQ(order, "rrre");
}

// ---- Timers

struct Recorder : Timer {
    Recorder(std::vector<int>& to, int number) : Timer(&Recorder::fired), order(to), id(number) {}
    static void fired(Timer& timer) {
        auto& self = static_cast<Recorder&>(timer);
        self.order.push_back(self.id);
    }
    std::vector<int>& order;
    int id;
};

TEST_F(RuntimeTest, TimersFireByDeadlineThenByArming) {
    std::vector<int> order;
    Recorder a(order, 1), b(order, 2), c(order, 3), d(order, 4);
    TimerQueue queue;
    queue.arm(a, 20);
    queue.arm(b, 10);
    queue.arm(c, 20);
    queue.arm(d, 30);
    EXPECT_EQ(queue.next_deadline(), 10u);
    EXPECT_EQ(queue.fire_due(9), 0u);
    EXPECT_EQ(queue.fire_due(20), 3u);
    EXPECT_EQ(order, (std::vector<int>{2, 1, 3}));
    d.disarm();
    EXPECT_EQ(queue.next_deadline(), never);
}

TEST_F(RuntimeTest, TimersRearmAndLeaveWhenDestroyed) {
    std::vector<int> order;
    TimerQueue queue;
    Recorder a(order, 1);
    queue.arm(a, 10);
    queue.arm(a, 50);
    EXPECT_EQ(queue.next_deadline(), 50u);
    {
        Recorder b(order, 2);
        queue.arm(b, 5);
    }
    EXPECT_EQ(queue.fire_due(100), 1u);
    EXPECT_EQ(order, std::vector<int>{1});
}

TEST_F(RuntimeTest, ManyTimersKeepTheirOrder) {
    Rng rng(3);
    std::vector<int> order;
    std::vector<std::unique_ptr<Recorder>> timers;
    TimerQueue queue;
    for (int i = 0; i < 2000; ++i) {
        timers.push_back(std::make_unique<Recorder>(order, i));
        queue.arm(*timers.back(), rng.below(500));
    }
    for (int i = 0; i < 2000; i += 3) timers[static_cast<size_t>(i)]->disarm();
    for (int i = 1; i < 2000; i += 3) queue.arm(*timers[static_cast<size_t>(i)], rng.below(500));
    Nanos last = 0;
    while (queue.next_deadline() != never) {
        const Nanos next = queue.next_deadline();
        EXPECT_GE(next, last);
        last = next;
        queue.fire_due(next);
    }
    EXPECT_EQ(order.size(), 2000u - 667u);
}

TEST_F(RuntimeTest, SleepingTakesTheTimeAskedFor) {
    const Nanos before = sim_.now();
    run([]() -> Task<void> { co_await sleep_for(5 * seconds); }());
    EXPECT_EQ(sim_.now() - before, 5 * seconds);
}

TEST_F(RuntimeTest, ASleepOfForeverNeverEnds) {
    node_.reactor().spawn([]() -> Task<void> {
        co_await sleep_for(never);
        ADD_FAILURE();
    }());
    sim_.run_for(1000 * seconds);
}

// ---- Waiting

TEST_F(RuntimeTest, AnEventWakesAllAndStaysSet) {
    Event event;
    int woken = 0;
    for (int i = 0; i < 3; ++i) {
        node_.reactor().spawn([](Event& on, int& count) -> Task<void> {
            co_await on.wait();
            ++count;
        }(event, woken));
    }
    sim_.run_until_idle();
    EXPECT_EQ(woken, 0);
    node_.call([&] { event.set(); });
    sim_.run_until_idle();
    EXPECT_EQ(woken, 3);
    run([](Event& on) -> Task<void> { co_await on.wait(); }(event));
}

TEST_F(RuntimeTest, AWaitGroupWaitsForTheLast) {
    WaitGroup group;
    int finished = 0;
    for (Nanos i = 1; i <= 5; ++i) {
        group.add();
        node_.reactor().spawn([](WaitGroup& in, int& count, Nanos delay) -> Task<void> {
            co_await sleep_for(delay * milliseconds);
            ++count;
            in.done();
        }(group, finished, i));
    }
    run([](WaitGroup& in) -> Task<void> { co_await in.wait(); }(group));
    EXPECT_EQ(finished, 5);
    EXPECT_EQ(group.count(), 0u);
}

TEST_F(RuntimeTest, AMutexLetsOneInAtATime) {
    Mutex mutex;
    int inside = 0;
    int passed = 0;
    for (int i = 0; i < 10; ++i) {
        node_.reactor().spawn([](Mutex& lock, int& in, int& count) -> Task<void> {
            co_await lock.lock();
            EXPECT_EQ(++in, 1);
            co_await sleep_for(1 * milliseconds);
            --in;
            ++count;
            lock.unlock();
        }(mutex, inside, passed));
    }
    sim_.run_until_idle();
    EXPECT_EQ(passed, 10);
}

TEST_F(RuntimeTest, regression_WhoAsksLaterDoesNotOvertakeTheWaiterOfAMutex) {
    Mutex mutex;
    std::string order;
    const auto enter = [&](char name) {
        node_.reactor().spawn([](Mutex& lock, std::string& out, char who) -> Task<void> {
            co_await lock.lock();
            out += who;
            co_await sleep_for(1 * milliseconds);
            lock.unlock();
        }(mutex, order, name));
    };
    node_.call([&] {
        node_.reactor().spawn([](Mutex& lock, auto& ask) -> Task<void> {
            co_await lock.lock();
            ask('a');
            ask('b');
            lock.unlock();
            ask('c');  // before 'a' has run
        }(mutex, enter));
    });
    sim_.run_until_idle();
    EXPECT_EQ(order, "abc");
}

TEST_F(RuntimeTest, AWaiterThatIsDestroyedLeavesItsQueue) {
    WaitQueue queue;
    {
        int alive = 0;
        sim::SimNode& other = sim_.add_node("b");
        other.start();
        other.reactor().spawn(hold_forever(alive, queue, 0));
        EXPECT_FALSE(queue.empty());
        other.kill();
    }
    EXPECT_TRUE(queue.empty());
    EXPECT_FALSE(queue.wake_one());
}

TEST_F(RuntimeTest, APostedCallRunsOnTheReactor) {
    struct Call : PostedCall {
        Reactor* ran_on = nullptr;
    } call;
    call.run = [](PostedCall& posted) { static_cast<Call&>(posted).ran_on = &Reactor::current(); };
    node_.reactor().post(call);
    EXPECT_EQ(call.ran_on, nullptr);
    sim_.run_until_idle();
    EXPECT_EQ(call.ran_on, &node_.reactor());
}

// ---- Buffers

TEST_F(RuntimeTest, BuffersAreAlignedDistinctAndComeBack) {
    BufferPool pool(4 << 20);
    const size_t all = pool.free_bytes();
    EXPECT_EQ(all, size_t{4} << 20);
    {
        std::vector<Buffer> held;
        for (const size_t bytes : {1uz, 4096uz, 4097uz, 65536uz, 100'000uz}) {
            held.push_back(pool.try_allocate(bytes));
            ASSERT_TRUE(held.back());
            EXPECT_EQ(held.back().size(), bytes);
            EXPECT_EQ(reinterpret_cast<uintptr_t>(held.back().data()) % 4096, 0u);
            std::memset(held.back().data(), static_cast<int>(held.size()), bytes);
        }
        for (size_t i = 0; i < held.size(); ++i) {
            EXPECT_EQ(held[i].bytes().back(), static_cast<std::byte>(i + 1));
        }
        EXPECT_EQ(pool.free_bytes(), all - (4096 + 4096 + 8192 + 65536 + 131072));
    }
    EXPECT_EQ(pool.free_bytes(), all);
    EXPECT_TRUE(pool.try_allocate(BufferPool::max_buffer_bytes));
}

TEST_F(RuntimeTest, PiecesMergeAgainWhateverTheOrder) {
    BufferPool pool(4 << 20);
    Rng rng(11);
    std::vector<Buffer> held;
    for (int i = 0; i < 20'000; ++i) {
        if (!held.empty() && rng.below(5) < 2) {
            std::swap(held[rng.below(held.size())], held.back());
            held.pop_back();
        } else if (Buffer buffer = pool.try_allocate(1 + rng.below(64 << 10))) {
            held.push_back(std::move(buffer));
        } else {
            held.clear();
        }
    }
    held.clear();
    EXPECT_EQ(pool.free_bytes(), size_t{4} << 20);
    const Buffer one = pool.try_allocate(BufferPool::max_buffer_bytes);
    const Buffer two = pool.try_allocate(BufferPool::max_buffer_bytes);
    EXPECT_TRUE(one && two);
    EXPECT_FALSE(pool.try_allocate(1));
}

TEST_F(RuntimeTest, AnEmptyPoolServesWaitersInOrder) {
    std::vector<int> order;
    BufferPool pool(2 << 20);
    Buffer all = pool.try_allocate(BufferPool::max_buffer_bytes);
    const auto wait = [](BufferPool& from, std::vector<int>& to, int id,
                         size_t bytes) -> Task<void> {
        Buffer buffer = co_await from.allocate(bytes);
        EXPECT_TRUE(buffer);
        to.push_back(id);
        co_await yield();
    };
    // The large one came first: the small one behind it does not overtake.
    node_.reactor().spawn(wait(pool, order, 1, BufferPool::max_buffer_bytes));
    node_.reactor().spawn(wait(pool, order, 2, 4096));
    sim_.run_until_idle();
    EXPECT_TRUE(order.empty());
    node_.call([&] { all = Buffer(); });
    sim_.run_until_idle();
    EXPECT_EQ(order, (std::vector<int>{1, 2}));
    EXPECT_EQ(pool.free_bytes(), size_t{2} << 20);
}

TEST_F(RuntimeTest, SteadyStateAllocatesNoFrames) {
    run([]() -> Task<void> {
        for (int i = 0; i < 100; ++i) co_await sum_to(20);
        const uint64_t before = frames_allocated();
        for (int i = 0; i < 1000; ++i) co_await sum_to(20);
        EXPECT_EQ(frames_allocated(), before);
    }());
}

// ---- Addresses

TEST(Address, ParsesAndPrints) {
    EXPECT_EQ(Address::parse("127.0.0.1:80")->text(), "127.0.0.1:80");
    EXPECT_EQ(Address::parse("[::1]:49162")->host, "::1");
    EXPECT_EQ(Address::parse("[::1]:49162")->text(), "[::1]:49162");
    EXPECT_EQ(Address::parse("/run/x.sock")->text(), "/run/x.sock");
    for (const char* bad :
         {"", "host", "host:", ":80", "host:65536", "host:-1", "host:8x", "::1:80", "[]:80"}) {
        const auto parsed = Address::parse(bad);
        ASSERT_FALSE(parsed.has_value()) << bad;
        EXPECT_NE(parsed.error().message.find("HOST:PORT"), std::string::npos);
    }
}

}  // namespace
}  // namespace pf::runtime
