// Open volumes: sessions, writer tokens, and what may be done to a volume that somebody has open.
#include "conductor/core_test.hpp"

namespace pf::conductor {
namespace {

TEST_F(CoreTest, OpenVolumesAreNotDeletedWithoutForce) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", gib));
    const auto first = open("vol", 7);
    const auto second = open("vol", 7, false, true);
    const auto third = open("vol", 8);
    ASSERT_TRUE(first && second && third);
    EXPECT_NE(first->session(), third->session());
    EXPECT_EQ(second->session(), 0u);
    EXPECT_EQ(core_->show_volume("vol")->open_handles(), 3u);
    const auto refused = remove("vol");
    EXPECT_EQ(refused.error().code, Errc::busy);
    EXPECT_NE(refused.error().message.find("--force"), std::string::npos);
    EXPECT_FALSE(core_->close_volume(first->handle(), 8)) << "another's handle";
    EXPECT_TRUE(core_->close_volume(first->handle(), 7));
    core_->close_connection(7);
    EXPECT_EQ(core_->show_volume("vol")->open_handles(), 1u);
    EXPECT_TRUE(*remove("vol", true));
    core_->close_connection(8);
    EXPECT_EQ(core_->status().open_handles, 0u);
    expect_no_trace();
}

// Found by hand: handles are in memory only, so for some seconds after a restart of the conductor
// an open volume was deleted without --force.
TEST_F(CoreTest, regression_a_volume_open_before_a_restart_is_not_deleted_without_force) {
    ASSERT_TRUE(register_store(1, 1));
    for (const char* name : {"used", "closed", "forced"}) ASSERT_TRUE(create(name, gib));
    ASSERT_TRUE(open("used", 7));
    ASSERT_TRUE(open("forced", 7));
    ASSERT_TRUE(open("closed", 8));
    core_->close_connection(8);
    reactor_.run_for(milliseconds);
    crash();
    start();
    ASSERT_TRUE(register_store(1, 1));
    EXPECT_TRUE(remove("closed")) << "it had no client any more";
    const auto refused = remove("used");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::busy);
    EXPECT_NE(refused.error().message.find("--force"), std::string::npos);
    EXPECT_TRUE(remove("forced", true));
    // The mark outlives a second crash, and the client's return ends in a close.
    restart();
    ASSERT_TRUE(register_store(1, 1));
    EXPECT_FALSE(remove("used"));
    ASSERT_TRUE(open("used", 9));
    core_->close_connection(9);
    EXPECT_FALSE(remove("used")) << "another client may come";
    reactor_.run_for(reopen_grace);
    EXPECT_EQ(keys_under("open/"), 0u);
    ASSERT_TRUE(register_store(1, 1));  // no heartbeat came
    EXPECT_TRUE(remove("used"));
    expect_no_trace();
}

TEST_F(CoreTest, SessionsAreNeverReused) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", gib));
    std::set<uint64_t> seen;
    for (int round = 0; round < 4; ++round) {
        for (int i = 0; i < 700; ++i) {
            const auto opened = open("vol", 1);
            ASSERT_TRUE(opened);
            EXPECT_TRUE(seen.insert(opened->session()).second);
        }
        crash();
        start();
    }
}

// R11.
TEST_F(CoreTest, ExclusiveOpenFencesAtTheStoresFirst) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(create("vol", gib));
    const auto before = open("vol", 1);
    const auto exclusive = open("vol", 2, true);
    ASSERT_TRUE(exclusive);
    EXPECT_GT(exclusive->writer_token(), before->writer_token());
    EXPECT_EQ(fake(1).shards.begin()->second.shard().writer_token(), exclusive->writer_token());
    fake(1).reachable = false;
    EXPECT_FALSE(open("vol", 3, true)) << "earlier writers cannot be fenced now";
    fake(1).reachable = true;
    restart();
    ASSERT_TRUE(register_store(1, 1));
    EXPECT_GT(open("vol", 4)->writer_token(), exclusive->writer_token());
    EXPECT_FALSE(open("vol", 4, true, true));
}

// Writers with the new token waited for ever at the stores that had not been told of it.
TEST_F(CoreTest, regression_a_token_reaches_every_store_after_a_failed_open) {
    ASSERT_TRUE(register_store(1, 1));
    ASSERT_TRUE(register_store(2, 1));
    ASSERT_TRUE(create("vol", 4 * gib, 1, gib));
    ASSERT_FALSE(fake(2).shards.empty());
    const auto tokens = [&](uint32_t store) {
        std::set<uint64_t> out;
        for (const auto& [id, shard] : fake(store).shards) out.insert(shard.shard().writer_token());
        return out;
    };
    const uint64_t token = open("vol", 1)->writer_token();
    fake(1).reachable = false;
    EXPECT_FALSE(open("vol", 2, true));
    EXPECT_EQ(tokens(1), std::set{token});
    EXPECT_EQ(tokens(2), std::set{token + 1}) << "told although the first one is away";
    fake(1).reachable = true;
    fake(2).fail_after = 0;
    EXPECT_FALSE(open("vol", 3, true));
    fake(2).fail_after = UINT32_MAX;
    reactor_.run_for(2 * seconds);
    EXPECT_EQ(open("vol", 4)->writer_token(), token + 2);
    EXPECT_EQ(tokens(1), std::set{token + 2});
    EXPECT_EQ(tokens(2), std::set{token + 2});
}

// One tray of a store that is not mounted says nothing of its others.
TEST_F(CoreTest, regression_a_token_reaches_the_other_trays_of_a_store) {
    ASSERT_TRUE(register_store(1, 2));
    ASSERT_TRUE(create("vol", 4 * gib, 1, gib));
    const uint64_t token = open("vol", 1)->writer_token();
    fake(1).lost_trays = {tray_uuid(1, 0)};
    EXPECT_FALSE(open("vol", 2, true));
    for (const auto& [id, shard] : fake(1).shards) {
        const bool told = shard.tray_uuid() != tray_uuid(1, 0);
        EXPECT_EQ(shard.shard().writer_token(), token + (told ? 1 : 0)) << shard.tray_uuid();
    }
    fake(1).lost_trays.clear();
    reactor_.run_for(2 * seconds);
    for (const auto& [id, shard] : fake(1).shards)
        EXPECT_EQ(shard.shard().writer_token(), token + 1);
}

}  // namespace
}  // namespace pf::conductor
