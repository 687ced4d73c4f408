// Goal: every metadata engine keeps the contract of meta/engine.hpp. One suite, run on each engine.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "meta/memory_engine.hpp"
#include "meta/sqlite_engine.hpp"
#include "meta/test_reactor.hpp"

namespace pf::meta {
namespace {

using runtime::milliseconds;
using runtime::Task;

class EngineTest : public testing::TestWithParam<const char*> {
  protected:
    void SetUp() override {
        char name[] = "/tmp/pf_meta_XXXXXX";
        directory_ = mkdtemp(name);
        reopen();
    }
    void TearDown() override {
        reactor_.run(engine_->close());
        engine_.reset();
        std::filesystem::remove_all(directory_);
    }
    void reopen() {
        if (engine_) reactor_.run(engine_->close());
        engine_.reset();
        if (std::string_view(GetParam()) == "memory") {
            engine_ = std::make_unique<MemoryEngine>(reactor_, store_);
        } else {
            auto opened = SqliteEngine::open(reactor_, directory_ + "/meta.db");
            ASSERT_TRUE(opened) << opened.error().text();
            engine_ = std::move(*opened);
        }
    }
    Result<Version> commit(Transaction transaction) {
        return reactor_.run(engine_->commit(std::move(transaction)));
    }
    Result<Entry> get(std::string key) { return reactor_.run(engine_->get(std::move(key))); }
    EntryList list(std::string prefix, std::string after = "", uint32_t limit = 100) {
        auto listed = reactor_.run(engine_->list(std::move(prefix), std::move(after), limit));
        EXPECT_TRUE(listed);
        return std::move(*listed);
    }
    bool exists(std::string key) { return get(std::move(key)).has_value(); }

    std::string directory_;
    TestReactor reactor_;
    MemoryStore store_;
    std::unique_ptr<Engine> engine_;
};

TEST_P(EngineTest, PutGetRemove) {
    EXPECT_EQ(get("a").error().code, Errc::not_found);
    const std::string binary("\0\xff value", 8);
    const auto first = commit(Transaction().put("a", binary).put("b", ""));
    ASSERT_TRUE(first);
    EXPECT_EQ(get("a")->value, binary);
    EXPECT_EQ(get("a")->version, *first);
    EXPECT_EQ(get("b")->value, "");
    const auto second = commit(Transaction().remove("a").remove("absent").put("b", "2"));
    ASSERT_TRUE(second);
    EXPECT_GT(*second, *first);
    EXPECT_FALSE(exists("a"));
    EXPECT_EQ(get("b")->version, *second);
}

TEST_P(EngineTest, CompareAndSetOnSeveralKeys) {
    const auto version = commit(Transaction().put("x", "1").put("y", "1"));
    ASSERT_TRUE(version);
    EXPECT_TRUE(commit(Transaction().expect("x", *version).expect("z", 0).put("x", "2")));
    // One compare of several fails: nothing changes.
    const auto lost = commit(
        Transaction().expect("y", *version).expect("x", *version).put("y", "3").put("z", "3"));
    EXPECT_EQ(lost.error().code, Errc::conflict);
    EXPECT_EQ(get("y")->value, "1");
    EXPECT_FALSE(exists("z"));
    EXPECT_EQ(commit(Transaction().expect("y", 0).put("y", "4")).error().code, Errc::conflict);
    // A compare alone is a valid transaction.
    EXPECT_TRUE(commit(Transaction().expect("y", *version)));
}

TEST_P(EngineTest, ListsByPrefixInPages) {
    Transaction transaction;
    for (int i = 0; i < 25; ++i) transaction.put("p/" + std::string(1, char('a' + i)), "v");
    transaction.put("o", "").put("p", "").put("p0", "").put("q", "");
    ASSERT_TRUE(commit(std::move(transaction)));
    std::string after;
    std::string seen;
    for (;;) {
        const EntryList page = list("p/", after, 10);
        for (const auto& entry : page.entries) seen += entry.key.back();
        after = page.entries.back().key;
        if (!page.more) break;
        EXPECT_EQ(page.entries.size(), 10u);
    }
    EXPECT_EQ(seen, "abcdefghijklmnopqrstuvwxy");
    EXPECT_EQ(list("").entries.size(), 29u);
    EXPECT_EQ(list("p", "p/y").entries.size(), 1u);
    EXPECT_TRUE(list("none").entries.empty());
    ASSERT_TRUE(commit(Transaction().put("\xff\xff", "").put("\xff", "")));
    EXPECT_EQ(list("\xff").entries.size(), 2u);
}

TEST_P(EngineTest, RefusesWhatIsOverTheLimits) {
    Transaction many;
    for (int i = 0; i < 129; ++i) many.put("k" + std::to_string(i), "");
    EXPECT_EQ(commit(std::move(many)).error().code, Errc::invalid_argument);
    EXPECT_EQ(commit(Transaction()).error().code, Errc::invalid_argument);
    EXPECT_EQ(commit(Transaction().put("k", std::string(1 << 20, 'x'))).error().code,
              Errc::invalid_argument);
    EXPECT_EQ(commit(Transaction().put(std::string(513, 'k'), "")).error().code,
              Errc::invalid_argument);
    EXPECT_EQ(commit(Transaction().put("k", "1").remove("k")).error().code, Errc::invalid_argument);
    EXPECT_FALSE(exists("k"));
}

TEST_P(EngineTest, KeepsWhatWasCommittedAcrossReopen) {
    const auto version = commit(Transaction().put("a", "1"));
    ASSERT_TRUE(version);
    reopen();
    EXPECT_EQ(get("a")->version, *version);
    const auto later = commit(Transaction().expect("a", *version).put("a", "2"));
    ASSERT_TRUE(later);
    EXPECT_GT(*later, *version);
}

TEST_P(EngineTest, WatchSeesChangesInOrder) {
    ASSERT_TRUE(commit(Transaction().put("w/0", "before")));
    const auto watch = engine_->watch("w/");
    ASSERT_TRUE(commit(Transaction().put("w/1", "one").put("other", "")));
    ASSERT_TRUE(commit(Transaction().remove("w/1")));
    EXPECT_FALSE(commit(Transaction().expect("w/0", 0).put("w/2", "")));
    const auto events = reactor_.run(watch->next());
    ASSERT_TRUE(events);
    ASSERT_EQ(events->size(), 2u);
    EXPECT_EQ((*events)[0].key, "w/1");
    EXPECT_EQ((*events)[0].value, "one");
    EXPECT_EQ((*events)[1].version, 0u);
    EXPECT_GT((*events)[1].revision, (*events)[0].revision);
}

TEST_P(EngineTest, WatchThatFallsBehindIsTold) {
    const auto watch = engine_->watch("w/");
    for (size_t i = 0; i <= Watch::max_queued_events / 128; ++i) {
        Transaction transaction;
        for (int k = 0; k < 128; ++k) transaction.put("w/" + std::to_string(k), "");
        ASSERT_TRUE(commit(std::move(transaction)));
    }
    EXPECT_EQ(reactor_.run(watch->next()).error().code, Errc::resource_exhausted);
    ASSERT_TRUE(commit(Transaction().put("w/z", "")));
    EXPECT_TRUE(reactor_.run(watch->next()));
}

TEST_P(EngineTest, LeaseTakesItsKeysAlong) {
    const auto lease = reactor_.run(engine_->grant_lease(60 * milliseconds));
    ASSERT_TRUE(lease);
    ASSERT_TRUE(commit(Transaction().put("leased", "", *lease).put("plain", "")));
    for (int i = 0; i < 4; ++i) {
        reactor_.run_for(30 * milliseconds);
        ASSERT_TRUE(reactor_.run(engine_->keep_alive(*lease)));
    }
    EXPECT_TRUE(exists("leased"));
    reactor_.run_for(200 * milliseconds);
    EXPECT_FALSE(exists("leased"));
    EXPECT_TRUE(exists("plain"));
    EXPECT_FALSE(reactor_.run(engine_->keep_alive(*lease)));
    EXPECT_FALSE(commit(Transaction().put("leased", "", *lease)));
}

TEST_P(EngineTest, LeaseDoesNotOutliveTheProcess) {
    const auto lease = reactor_.run(engine_->grant_lease(3600 * runtime::seconds));
    ASSERT_TRUE(commit(Transaction().put("leased", "", *lease)));
    reopen();
    EXPECT_FALSE(exists("leased"));
}

TEST_P(EngineTest, OneLeaderAtATime) {
    const auto first = reactor_.run(engine_->campaign("c", "one", 3600 * runtime::seconds));
    ASSERT_TRUE(first);
    EXPECT_TRUE(commit(Transaction().expect(first->guard.key, first->guard.version).put("a", "1")));
    std::optional<Result<Leadership>> second;
    reactor_.spawn([](Engine& engine, std::optional<Result<Leadership>>& to) -> Task<void> {
        to = co_await engine.campaign("c", "two", 3600 * runtime::seconds);
    }(*engine_, second));
    reactor_.run_for(20 * milliseconds);
    EXPECT_FALSE(second.has_value());
    ASSERT_TRUE(reactor_.run(engine_->revoke_lease(first->lease)));
    reactor_.loop([&] { return second.has_value(); });
    ASSERT_TRUE(*second);
    EXPECT_EQ(get("leader/c")->value, "two");
    // The deposed leader changes nothing.
    EXPECT_FALSE(
        commit(Transaction().expect(first->guard.key, first->guard.version).put("a", "2")));
    EXPECT_EQ(get("a")->value, "1");
}

INSTANTIATE_TEST_SUITE_P(Engines, EngineTest, testing::Values("memory", "sqlite"),
                         [](const auto& engine) { return std::string(engine.param); });

TEST(SqliteEngine, SecondProcessIsRefused) {
    char name[] = "/tmp/pf_meta_XXXXXX";
    const std::string directory = mkdtemp(name);
    TestReactor reactor;
    auto first = SqliteEngine::open(reactor, directory + "/meta.db");
    ASSERT_TRUE(first);
    const auto second = SqliteEngine::open(reactor, directory + "/meta.db");
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::busy) << second.error().text();
    reactor.run((*first)->close());
    first->reset();
    std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace pf::meta
