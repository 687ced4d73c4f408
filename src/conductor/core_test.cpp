// What the core tells people and clients: loads, losses, fresh shards, and its answers over RPC.
#include "conductor/core_test.hpp"

namespace pf::conductor {
namespace {

TEST_F(CoreTest, TopAddsUpLoads) {
    ASSERT_TRUE(register_store(1, 1));
    const auto created = create("vol", gib);
    v1::HeartbeatRequest beat;
    beat.set_store_id(1);
    auto& load = *beat.add_loads();
    load.set_volume_id(created->id());
    load.set_reads(100);
    load.set_read_bytes(409600);
    load.set_read_us(10000);
    load.set_interval_us(500'000);
    ASSERT_TRUE(core_->heartbeat(beat));
    const auto rates = core_->rates();
    ASSERT_EQ(rates.size(), 1u);
    EXPECT_EQ(rates[0].name, "vol");
    EXPECT_DOUBLE_EQ(rates[0].read_iops, 200);
    EXPECT_DOUBLE_EQ(rates[0].read_latency_seconds, 1e-4);
    EXPECT_DOUBLE_EQ(rates[0].write_iops, 0);
}

// T7: what a store says is lost is shown with names, and accepted by the operator only.
TEST_F(CoreTest, LossesAreShownByNameAndAccepted) {
    ASSERT_TRUE(register_store(1, 1));
    const auto created = create("vol", gib);
    ASSERT_TRUE(create("whole", gib));
    v1::HeartbeatRequest beat;
    beat.set_store_id(1);
    auto& tray = *beat.add_trays();
    tray.set_uuid(tray_uuid(1, 0));
    tray.set_incarnation(1);
    tray.set_health(v1::HEALTH_DEGRADED);
    auto& lost = *tray.add_lost();
    lost.set_volume_id(created->id());
    lost.set_shards(1);
    ASSERT_TRUE(core_->heartbeat(beat));
    fake(1).damaged = {created->id() << shard_index_bits};

    const auto shown = core_->show_volume("vol");
    EXPECT_EQ(shown->health(), v1::HEALTH_ERROR);
    EXPECT_EQ(shown->lost_shards(), 1u);
    EXPECT_NE(shown->message().find("accept-loss vol --force"), std::string::npos);
    EXPECT_EQ(core_->show_volume("whole")->lost_shards(), 0u);
    EXPECT_NE(core_->list_trays()[0].message().find("volumes vol may"), std::string::npos);
    EXPECT_EQ(core_->status().volumes_with_losses, 1u);
    EXPECT_EQ(core_->status().health, v1::HEALTH_ERROR);

    const auto accept = [&](bool force) {
        return reactor_.run(core_->accept_volume_loss("vol", force));
    };
    EXPECT_EQ(accept(false).error().code, Errc::conflict);
    EXPECT_EQ(core_->show_volume("vol")->lost_shards(), 1u);
    EXPECT_EQ(accept(true).value_or(0), 1u);
    EXPECT_EQ(core_->show_volume("vol")->lost_shards(), 0u);
    EXPECT_EQ(accept(true).value_or(9), 0u);  // again, after a lost answer
    EXPECT_EQ(reactor_.run(core_->accept_tray_loss("none", true)).error().code, Errc::not_found);
}

// T7: a store may make a shard only while the conductor is making it; later it has lost it.
TEST_F(CoreTest, OnlyNewShardsAreFresh) {
    ASSERT_TRUE(register_store(1, 1));
    const auto created = create("vol", 2 * gib, 1, gib);
    const uint64_t first = created->id() << shard_index_bits;
    EXPECT_TRUE(fake(1).shards.at(first).fresh() && fake(1).shards.at(first + 1).fresh());
    ASSERT_TRUE(resize("vol", 3 * gib));
    EXPECT_FALSE(fake(1).shards.at(first + 1).fresh());
    EXPECT_TRUE(fake(1).shards.at(first + 2).fresh());
    ASSERT_TRUE(register_store(1, 1, 2));
    for (uint64_t i = 0; i < 3; ++i) EXPECT_FALSE(fake(1).shards.at(first + i).fresh()) << i;
}

TEST_F(CoreTest, RpcAnswersAndRefuses) {
    ASSERT_TRUE(register_store(1, 1));
    RpcServer server(*core_);
    EXPECT_EQ(reactor_.run(server.answer("\xff\xff", 1)).error().code, Errc::protocol);
    v1::RpcRequest request;
    request.mutable_apply_shards();
    EXPECT_EQ(reactor_.run(server.answer(request.SerializeAsString(), 1)).error().code,
              Errc::unsupported);
    request.mutable_create_volume()->set_name("vol");
    request.mutable_create_volume()->set_size_bytes(gib);
    const auto bytes = reactor_.run(server.answer(request.SerializeAsString(), 1));
    ASSERT_TRUE(bytes);
    v1::RpcReply reply;
    ASSERT_TRUE(reply.ParseFromString(*bytes));
    EXPECT_EQ(reply.volume().name(), "vol");
    // A client that is gone while its open runs leaves no handle.
    request.mutable_open_volume()->set_name("vol");
    ASSERT_TRUE(reactor_.run(server.answer(request.SerializeAsString(), 99)));
    EXPECT_EQ(core_->status().open_handles, 0u);
}

}  // namespace
}  // namespace pf::conductor
