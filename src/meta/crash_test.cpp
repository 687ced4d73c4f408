// Goal: what the sqlite engine acknowledged survives kill -9. Method: a child commits numbered
// transactions of two keys and reports each acknowledged number through a pipe; the parent kills it
// at a random moment, opens the file and finds every reported number, and never half a transaction.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "meta/sqlite_engine.hpp"
#include "meta/test_reactor.hpp"

namespace pf::meta {
namespace {

constexpr int rounds = 12;

[[noreturn]] void write_until_killed(const std::string& path, uint64_t first, int report_fd) {
    TestReactor reactor;
    auto engine = SqliteEngine::open(reactor, path);
    if (!engine) _exit(3);
    for (uint64_t number = first;; ++number) {
        const std::string text = std::to_string(number);
        Transaction transaction;
        transaction.put("one/" + text, text).put("two/" + text, text).put("last", text);
        if (!reactor.run((*engine)->commit(std::move(transaction)))) _exit(4);
        if (write(report_fd, &number, sizeof number) != sizeof number) _exit(5);
    }
}

uint64_t run_child(const std::string& path, uint64_t first, unsigned life_us) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) write_until_killed(path, first, ends[1]);
    close(ends[1]);
    usleep(life_us);
    kill(child, SIGKILL);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child ended by itself: " << status;
    uint64_t acknowledged = first - 1;
    for (uint64_t number = 0; read(ends[0], &number, sizeof number) == sizeof number;) {
        EXPECT_EQ(number, acknowledged + 1);
        acknowledged = number;
    }
    close(ends[0]);
    return acknowledged;
}

uint64_t check_file(const std::string& path, uint64_t acknowledged) {
    TestReactor reactor;
    auto engine = SqliteEngine::open(reactor, path);
    EXPECT_TRUE(engine) << engine.error().text();
    if (!engine) return 0;
    uint64_t last = 0;
    if (const auto entry = reactor.run((*engine)->get("last"))) last = std::stoull(entry->value);
    EXPECT_GE(last, acknowledged);
    EXPECT_LE(last, acknowledged + 1);  // one may have been durable before it was reported
    for (uint64_t number = 1; number <= last + 1; ++number) {
        const std::string text = std::to_string(number);
        const bool one = reactor.run((*engine)->get("one/" + text)).has_value();
        const bool two = reactor.run((*engine)->get("two/" + text)).has_value();
        EXPECT_EQ(one, number <= last) << number;
        EXPECT_EQ(two, one) << number;
    }
    reactor.run((*engine)->close());
    return last;
}

TEST(SqliteCrash, AcknowledgedTransactionsSurviveKill) {
    char name[] = "/tmp/pf_meta_XXXXXX";
    const std::string directory = mkdtemp(name);
    const std::string path = directory + "/meta.db";
    uint64_t last = 0;
    Rng rng(7);
    for (int round = 0; round < rounds; ++round) {
        const auto life_us = static_cast<unsigned>(rng.between(20'000, 200'000));
        const uint64_t acknowledged = run_child(path, last + 1, life_us);
        last = check_file(path, acknowledged);
    }
    EXPECT_GT(last, 0u) << "no child lived long enough to commit anything";
    std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace pf::meta
