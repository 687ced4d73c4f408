// Loop, timers, posted calls, cross-reactor calls and being driven from outside.
#include "runtime/uring/uring_reactor.hpp"

#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "runtime/call_on.hpp"
#include "runtime/uring/reactor_thread.hpp"
#include "runtime/uring/uring_test.hpp"

namespace pf::runtime {
namespace {

TEST(UringReactor, TimersFireInOrderOfDeadline) {
    TestReactor test;
    std::vector<int> order;
    const auto sleeper = [](std::vector<int>& out, int id, Nanos time) -> Task<void> {
        co_await sleep_for(time);
        out.push_back(id);
    };
    test->spawn(sleeper(order, 2, 20 * milliseconds));
    test->spawn(sleeper(order, 1, 5 * milliseconds));
    const Nanos start = test->fresh_now();
    const auto body = [](UringReactor& reactor) -> Task<void> {
        co_await sleep_for(30 * milliseconds);
        reactor.stop();
    };
    test->spawn(body(*test));
    test->run();
    EXPECT_GE(test->fresh_now() - start, 30 * milliseconds);
    EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(UringReactor, ASleepThatSubmitsDoesNotSleepTwice) {
    TestReactor test;
    test.run([](UringReactor& reactor) -> Task<void> {
        for (int i = 0; i < 5; ++i) {
            const Nanos start = reactor.fresh_now();
            co_await sleep_for(40 * milliseconds);
            EXPECT_LT(reactor.fresh_now() - start, 75 * milliseconds);
        }
    });
}

TEST(UringReactor, IdleLoopMakesNoTurns) {
    TestReactor test;
    test.run([](UringReactor& reactor) -> Task<void> {
        const uint64_t before = reactor.turns();
        co_await sleep_for(300 * milliseconds);
        EXPECT_LE(reactor.turns() - before, 4u);
    });
}

TEST(UringReactor, CallsPostedByThreadsAllRun) {
    struct Counted : PostedCall {
        uint64_t* count = nullptr;
    };
    constexpr size_t threads = 4;
    constexpr size_t calls_per_thread = 5000;
    TestReactor test;
    uint64_t count = 0;
    std::vector<std::vector<Counted>> calls(threads);
    std::vector<std::thread> posters;
    for (auto& own : calls) {
        own = std::vector<Counted>(calls_per_thread);
        for (auto& call : own) {
            call.count = &count;
            call.run = [](PostedCall& base) {
                if (++*static_cast<Counted&>(base).count == threads * calls_per_thread) {
                    static_cast<UringReactor&>(Reactor::current()).stop();
                }
            };
        }
        posters.emplace_back([&own, &test] {
            for (size_t i = 0; i < own.size(); ++i) {
                test->post(own[i]);
                // Pauses let the loop fall asleep, so that waking is exercised too.
                if (i % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
        });
    }
    test->run();
    for (auto& poster : posters) poster.join();
    EXPECT_EQ(count, threads * calls_per_thread);
}

TEST(UringReactor, DestroysSuspendedCoroutines) {
    struct Marker {
        bool& gone;
        ~Marker() { gone = true; }
    };
    bool gone = false;
    {
        TestReactor test;
        const auto body = [](bool& flag) -> Task<void> {
            Marker marker{flag};
            co_await sleep_for(3600 * seconds);
        };
        test->spawn(body(gone));
        test->poll(0);
    }
    EXPECT_TRUE(gone);
}

TEST(UringReactor, PollingRunsTimersAndBoundsTheWait) {
    TestReactor test;
    const auto body = [](Nanos time, bool& flag) -> Task<void> {
        co_await sleep_for(time);
        flag = true;
    };
    bool late = false;
    test->spawn(body(3600 * seconds, late));
    test->poll(5 * milliseconds);  // and not until the timer
    EXPECT_FALSE(late);
    bool soon = false;
    test->spawn(body(20 * milliseconds, soon));
    for (int i = 0; i < 100 && !soon; ++i) test->poll(never);
    EXPECT_TRUE(soon);
}

bool readable(int fd, int timeout_ms) {
    pollfd entry{fd, POLLIN, 0};
    return ::poll(&entry, 1, timeout_ms) == 1;
}

TEST(UringReactor, PollableDescriptorFiresForTimersAndPosts) {
    TestReactor test;
    const int fd = test->pollable_fd().value();
    test->poll(0);
    test->poll(0);
    EXPECT_FALSE(readable(fd, 0));

    int fired = 0;
    const auto sleeper = [](int& count, Nanos time) -> Task<void> {
        co_await sleep_for(time);
        ++count;
    };
    test->spawn(sleeper(fired, 400 * milliseconds));
    test->poll(0);
    // A later, shorter sleep must move the alarm forward.
    test->spawn(sleeper(fired, 20 * milliseconds));
    test->poll(0);
    for (int i = 0; i < 10 && fired < 1; ++i) {
        ASSERT_TRUE(readable(fd, 350));
        test->poll(0);
    }
    EXPECT_EQ(fired, 1);

    struct Flag : PostedCall {
        bool done = false;
    } call;
    call.run = [](PostedCall& base) { static_cast<Flag&>(base).done = true; };
    std::thread poster([&] { test->post(call); });
    poster.join();
    for (int i = 0; i < 10 && !call.done; ++i) {
        ASSERT_TRUE(readable(fd, 1000));
        test->poll(0);
    }
    EXPECT_TRUE(call.done);
    for (int i = 0; i < 10 && fired < 2; ++i) {
        ASSERT_TRUE(readable(fd, 1000));
        test->poll(0);
    }
    EXPECT_EQ(fired, 2);
}

TEST(UringReactor, PollableDescriptorStaysReadableWhileWorkIsLeft) {
    TestReactor test;
    const int fd = test->pollable_fd().value();
    const auto spin = [](int& left) -> Task<void> {
        while (left-- > 0) co_await yield();
    };
    int left = 30000;  // more resumes than one turn runs
    test->spawn(spin(left));
    test->poll(0);
    for (int i = 0; i < 1000 && left > 0; ++i) {
        ASSERT_TRUE(readable(fd, 1000));
        test->poll(0);
    }
    EXPECT_LE(left, 0);
}

TEST(CallOn, BringsValuesErrorsAndMoveOnlyResultsHome) {
    auto started = ReactorGroup::start({small_options(), small_options()});
    ASSERT_TRUE(started) << started.error().text();
    ReactorGroup& group = **started;
    const auto body = [](Reactor& target) -> Task<int> {
        Reactor* const home = &Reactor::current();
        auto where = co_await call_on(target, [] { return &Reactor::current(); });
        EXPECT_EQ(where, &target);
        EXPECT_EQ(&Reactor::current(), home);
        auto text = co_await call_on(target, [] { return std::make_unique<int>(7); });
        EXPECT_EQ(*text, 7);
        auto slept = co_await call_on(target, []() -> Task<Result<int>> {
            co_await sleep_for(milliseconds);
            co_return fail(Errc::busy);
        });
        EXPECT_FALSE(slept);
        EXPECT_EQ(slept.error().code, Errc::busy);
        co_await call_on(target, []() -> Task<void> { co_await yield(); });
        co_return 42;
    };
    const int result = group.call(0, [&] { return body(group.reactor(1)); });
    EXPECT_EQ(result, 42);
}

TEST(CallOn, ManyCallsBothWays) {
    auto started = ReactorGroup::start({small_options(), small_options()});
    ASSERT_TRUE(started) << started.error().text();
    ReactorGroup& group = **started;
    const auto body = [](Reactor& target) -> Task<uint64_t> {
        uint64_t sum = 0;
        for (uint64_t i = 0; i < 5000; ++i) {
            const uint64_t got = co_await call_on(target, [i] { return i + 1; });
            sum += got;
        }
        co_return sum;
    };
    uint64_t first = 0;
    std::thread other([&] { first = group.call(0, [&] { return body(group.reactor(1)); }); });
    const uint64_t second = group.call(1, [&] { return body(group.reactor(0)); });
    other.join();
    EXPECT_EQ(first, uint64_t{5000} * 5001 / 2);
    EXPECT_EQ(second, first);
}

TEST(ReactorGroup, EndsWithCallsInFlight) {
    auto started = ReactorGroup::start({small_options(), small_options()});
    ASSERT_TRUE(started) << started.error().text();
    ReactorGroup& group = **started;
    const auto body = [](Reactor& target) -> Task<void> {
        co_await call_on(target, []() -> Task<void> { co_await sleep_for(3600 * seconds); });
    };
    group.call(0, [&] { Reactor::current().spawn(body(group.reactor(1))); });
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

}  // namespace
}  // namespace pf::runtime
