// The disk model: what is durable when, what a crash may leave, and each fault.
#include <gtest/gtest.h>

#include <set>

#include "runtime/sim/crash_enumerator.hpp"
#include "runtime/sim/seeds.hpp"
#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {
namespace {

Buffer filled(Reactor& reactor, size_t bytes, unsigned char value) {
    Buffer buffer = reactor.buffers().try_allocate(bytes);
    PF_ASSERT(buffer);
    std::memset(buffer.data(), value, bytes);
    return buffer;
}

Task<Status> write_at(Disk& disk, uint64_t offset, size_t bytes, unsigned char value) {
    Buffer buffer = filled(Reactor::current(), bytes, value);
    co_return co_await disk.write(offset, buffer.bytes());
}

Task<Status> write_through_at(Disk& disk, uint64_t offset, size_t bytes, unsigned char value) {
    Buffer buffer = filled(Reactor::current(), bytes, value);
    DiskAwaiter operation = disk.write(offset, buffer.bytes());
    operation.write_through = true;
    co_return co_await operation;
}

Task<Status> flush(Disk& disk) {
    co_return co_await disk.flush();
}

// -1 when the read fails or the bytes differ from each other.
Task<int> value_at(Disk& disk, uint64_t offset, size_t bytes) {
    Buffer buffer = filled(Reactor::current(), bytes, 0xEE);
    const Status status = co_await disk.read(offset, buffer.bytes());
    if (!status) co_return -1;
    for (const std::byte byte : buffer.bytes()) {
        if (byte != buffer.bytes()[0]) co_return -2;
    }
    co_return static_cast<int>(buffer.bytes()[0]);
}

class SimDiskTest : public ::testing::Test {
  protected:
    void open(DiskModel model = {}, uint64_t seed = 1) {
        sim_ = std::make_unique<Simulation>(SimOptions{.seed = seed});
        node_ = &sim_->add_node("a");
        device_ = &node_->add_disk("disk0", model);
        start();
    }
    void start() {
        node_->start();
        auto opened = sim_->run_task(*node_, node_->reactor().open_disk("disk0", {}));
        ASSERT_TRUE(opened && opened->has_value());
        disk_ = std::move(**opened);
    }
    void crash() {
        node_->power_loss();
        disk_.reset();
        start();
    }
    bool write(uint64_t offset, size_t bytes, unsigned char value) {
        return sim_->run_task(*node_, write_at(*disk_, offset, bytes, value))->has_value();
    }
    int read(uint64_t offset, size_t bytes = 4096) {
        return *sim_->run_task(*node_, value_at(*disk_, offset, bytes));
    }
    bool flush_disk() { return sim_->run_task(*node_, flush(*disk_))->has_value(); }
    void TearDown() override { disk_.reset(); }

    std::unique_ptr<Simulation> sim_;
    SimNode* node_ = nullptr;
    SimDisk* device_ = nullptr;
    std::unique_ptr<Disk> disk_;
};

TEST_F(SimDiskTest, ReadsBackWhatWasWritten) {
    open();
    EXPECT_EQ(read(8192), 0);
    EXPECT_TRUE(write(8192, 8192, 7));
    EXPECT_EQ(read(8192, 8192), 7);
    EXPECT_EQ(read(16384), 0);
}

TEST_F(SimDiskTest, FlushedWritesSurviveEveryPowerLoss) {
    for (const uint64_t seed : seeds_to_run(20)) {
        open({}, seed);
        EXPECT_TRUE(write(0, 4096, 7));
        EXPECT_TRUE(flush_disk());
        EXPECT_EQ(device_->unflushed_writes(), 0u);
        crash();
        EXPECT_EQ(read(0), 7);
        disk_.reset();
    }
}

TEST_F(SimDiskTest, UnflushedWritesAreKeptDroppedOrTorn) {
    std::set<int> seen;
    for (uint64_t seed = 1; seed <= 40; ++seed) {
        open({}, seed);
        EXPECT_TRUE(write(0, 4096, 7));
        crash();
        seen.insert(read(0));
        disk_.reset();
    }
    EXPECT_EQ(seen, (std::set<int>{-2, 0, 7}));
}

TEST_F(SimDiskTest, WithoutACacheACompletedWriteIsDurable) {
    for (const uint64_t seed : seeds_to_run(20)) {
        open({.volatile_cache = false}, seed);
        EXPECT_FALSE(disk_->volatile_cache());
        EXPECT_TRUE(write(0, 65536, 7));
        crash();
        EXPECT_EQ(read(0, 65536), 7);
        disk_.reset();
    }
}

TEST_F(SimDiskTest, AFlushCoversOnlyWhatCompletedBeforeItsSubmission) {
    open({.flush = {1 * milliseconds, 1 * milliseconds}});
    EXPECT_TRUE(write(0, 4096, 1));
    node_->reactor().spawn([](Disk& disk) -> Task<void> {
        const Status flushed = co_await flush(disk);
        EXPECT_TRUE(flushed);
    }(*disk_));
    EXPECT_TRUE(write(4096, 4096, 2));  // completes while the flush runs
    sim_->run_for(10 * milliseconds);
    EXPECT_EQ(device_->unflushed_writes(), 1u);
    EXPECT_EQ(device_->capture().writes[0].data->offset, 4096u);
}

TEST_F(SimDiskTest, AWriteThroughIsDurableAndNothingOlderComesBackOverIt) {
    for (const uint64_t seed : seeds_to_run(20)) {
        open({}, seed);
        EXPECT_TRUE(write(0, 8192, 1));
        EXPECT_TRUE(write(65536, 4096, 2));
        ASSERT_TRUE(sim_->run_task(*node_, write_through_at(*disk_, 0, 4096, 7))->has_value());
        EXPECT_EQ(device_->unflushed_writes(), 1u) << "the other write stays in the cache";
        crash();
        EXPECT_EQ(read(0), 7);
        disk_.reset();
    }
}

TEST_F(SimDiskTest, AFailedFlushNeverMakesItsWritesDurable) {
    open();
    device_->inject({.kind = FaultKind::error, .operations = DiskFault::on_flush});
    EXPECT_TRUE(write(0, 4096, 7));
    EXPECT_FALSE(flush_disk());
    EXPECT_TRUE(flush_disk());
    EXPECT_EQ(device_->unflushed_writes(), 1u);
    EXPECT_TRUE(device_->capture().writes[0].stuck);
    EXPECT_EQ(read(0), 7);
}

TEST_F(SimDiskTest, WhatAFailedFlushLeftNeverComesBackOverANewerWrite) {
    for (const uint64_t seed : seeds_to_run(20)) {
        open({}, seed);
        device_->inject({.kind = FaultKind::error, .operations = DiskFault::on_flush});
        EXPECT_TRUE(write(0, 4 * 4096, 7));
        EXPECT_FALSE(flush_disk());
        EXPECT_TRUE(write(4096, 4096, 8));
        EXPECT_TRUE(flush_disk());
        EXPECT_EQ(device_->unflushed_writes(), 2u) << "the rest, on both sides";
        EXPECT_EQ(read(0), 7);
        crash();
        EXPECT_EQ(read(4096), 8);
        disk_.reset();
    }
}

TEST_F(SimDiskTest, AWriteThroughMakesNothingDurableThatAFailedFlushLeft) {
    open();
    device_->inject({.kind = FaultKind::error, .operations = DiskFault::on_flush});
    EXPECT_TRUE(write(0, 4 * 4096, 7));
    EXPECT_FALSE(flush_disk());
    ASSERT_TRUE(sim_->run_task(*node_, write_through_at(*disk_, 4096, 4096, 8))->has_value());
    EXPECT_EQ(device_->unflushed_writes(), 2u) << "the rest, on both sides";
    for (const auto& left : device_->capture().writes) EXPECT_TRUE(left.stuck);
    EXPECT_EQ(read(0), 7);
    EXPECT_EQ(read(4096), 8);
}

TEST_F(SimDiskTest, CompletedWritesSurviveAKill) {
    open();
    EXPECT_TRUE(write(0, 4096, 7));
    node_->kill();
    disk_.reset();
    start();
    EXPECT_EQ(read(0), 7);
}

TEST_F(SimDiskTest, WritesInFlightAtAKillReachTheDeviceOrNot) {
    std::set<int> seen;
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        open({}, seed);
        node_->reactor().spawn([](Disk& disk) -> Task<void> {
            const Status status = co_await write_at(disk, 0, 4096, 9);
            ADD_FAILURE() << "must not be resumed: " << status.has_value();
        }(*disk_));
        EXPECT_EQ(device_->in_flight(), 1u);
        node_->kill();
        EXPECT_EQ(device_->in_flight(), 0u);
        disk_.reset();
        start();
        seen.insert(read(0));
        disk_.reset();
    }
    EXPECT_EQ(seen, (std::set<int>{0, 9}));
}

TEST_F(SimDiskTest, ScriptedErrorsHitTheChosenOperations) {
    open();
    device_->inject({.operations = DiskFault::on_write, .skip = 1, .count = 2});
    EXPECT_TRUE(write(0, 4096, 1));
    EXPECT_FALSE(write(0, 4096, 2));
    EXPECT_FALSE(write(0, 4096, 3));
    EXPECT_TRUE(write(0, 4096, 4));
    EXPECT_EQ(read(0), 4);
    device_->inject({.operations = DiskFault::on_read,
                     .offset = 8192,
                     .length = 4096,
                     .count = DiskFault::forever});
    EXPECT_EQ(read(4096), 0);
    EXPECT_EQ(read(8192), -1);
    EXPECT_EQ(read(8192), -1);
    device_->clear_faults();
    EXPECT_EQ(read(8192), 0);
    EXPECT_EQ(device_->injected(FaultKind::error), 4u);
}

TEST_F(SimDiskTest, AFailedWriteLeavesOldOrNewSectors) {
    std::set<int> seen;
    for (uint64_t seed = 1; seed <= 30; ++seed) {
        open({}, seed);
        EXPECT_TRUE(write(0, 4096, 1));
        device_->inject({.operations = DiskFault::on_write});
        EXPECT_FALSE(write(0, 4096, 2));
        seen.insert(read(0));
        disk_.reset();
    }
    EXPECT_EQ(seen, (std::set<int>{-2, 1, 2}));
}

TEST_F(SimDiskTest, LostAndMisdirectedAndRottenBytes) {
    open();
    std::vector<FaultReport> reports;
    device_->on_fault([&](const FaultReport& report) { reports.push_back(report); });
    EXPECT_TRUE(write(0, 4096, 1));
    device_->inject({.kind = FaultKind::lost_write});
    EXPECT_TRUE(write(0, 4096, 2));
    EXPECT_EQ(read(0), 1);
    device_->inject({.kind = FaultKind::misdirected_write, .other_offset = 40960});
    EXPECT_TRUE(write(0, 4096, 3));
    EXPECT_EQ(read(0), 1);
    EXPECT_EQ(read(40960), 3);
    device_->inject({.kind = FaultKind::misdirected_read, .other_offset = 40960});
    EXPECT_EQ(read(0), 3);
    EXPECT_EQ(read(0), 1);
    device_->inject({.kind = FaultKind::bit_rot});
    EXPECT_EQ(read(0), -2);
    EXPECT_EQ(read(0), -2);
    ASSERT_EQ(reports.size(), 4u);
    EXPECT_EQ(reports[1].kind, FaultKind::misdirected_write);
    EXPECT_EQ(reports[1].offset, 0u);
    EXPECT_EQ(reports[1].other_offset, 40960u);
}

TEST_F(SimDiskTest, RatesStrikeByThemselves) {
    open();
    FaultProfile faults;
    faults.disk = {.read_error_ppm = 50'000,
                   .write_error_ppm = 50'000,
                   .flush_error_ppm = 50'000,
                   .lost_write_ppm = 50'000,
                   .misdirected_write_ppm = 50'000,
                   .misdirected_read_ppm = 50'000,
                   .bit_rot_ppm = 50'000,
                   .slow_ppm = 50'000};
    sim_->set_faults(faults);
    int failed = 0;
    for (uint64_t i = 0; i < 300; ++i) {
        failed += write(i % 64 * 4096, 4096, 1) ? 0 : 1;
        failed += read(i % 64 * 4096) == -1 ? 1 : 0;
        failed += flush_disk() ? 0 : 1;
    }
    for (const FaultKind kind :
         {FaultKind::error, FaultKind::lost_write, FaultKind::misdirected_write,
          FaultKind::misdirected_read, FaultKind::bit_rot, FaultKind::slow}) {
        EXPECT_GT(device_->injected(kind), 0u) << static_cast<int>(kind);
    }
    EXPECT_EQ(static_cast<uint64_t>(failed), device_->injected(FaultKind::error));
}

TEST_F(SimDiskTest, SlowReadsAreReadsAlone) {
    DiskModel model;
    model.faults.slow_read_ppm = 1'000'000;
    model.faults.slow_extra = seconds;
    open(model);
    const Nanos before = sim_->now();
    EXPECT_TRUE(write(0, 4096, 1));
    EXPECT_TRUE(flush_disk());
    EXPECT_LT(sim_->now() - before, seconds);
    EXPECT_EQ(device_->injected(FaultKind::slow), 0u);
    EXPECT_EQ(read(0), 1);
    EXPECT_GE(sim_->now() - before, seconds);
    EXPECT_EQ(device_->injected(FaultKind::slow), 1u);
}

TEST_F(SimDiskTest, BitRotStaysAfterAFlush) {
    open();
    EXPECT_TRUE(write(0, 4096, 1));
    device_->flip_bit(100, 3);
    EXPECT_TRUE(flush_disk());
    EXPECT_EQ(read(0), -2);
    crash();
    EXPECT_EQ(read(0), -2);
}

TEST_F(SimDiskTest, SlowOperationsTakeLonger) {
    open();
    device_->inject({.kind = FaultKind::slow, .slow_extra = 3 * seconds});
    const Nanos before = sim_->now();
    EXPECT_TRUE(write(0, 4096, 1));
    EXPECT_GT(sim_->now() - before, 3 * seconds);
}

TEST_F(SimDiskTest, TheCacheIsBounded) {
    open({.cache_bytes = 65536});
    for (uint64_t i = 0; i < 64; ++i) EXPECT_TRUE(write(i * 4096, 4096, 5));
    EXPECT_EQ(device_->unflushed_writes(), 16u);
    crash();
    for (uint64_t i = 0; i < 48; ++i) EXPECT_EQ(read(i * 4096), 5);
}

TEST_F(SimDiskTest, ADiscardReadsAsZeros) {
    open();
    EXPECT_TRUE(write(0, 65536, 5));
    EXPECT_TRUE(sim_->run_task(*node_,
                               [](Disk& disk) -> Task<Status> {
                                   co_return co_await disk.discard(4096, 8192);
                               }(*disk_))
                    ->has_value());
    EXPECT_EQ(read(0), 5);
    EXPECT_EQ(read(4096, 8192), 0);
}

TEST_F(SimDiskTest, OneExclusiveHolderAtATime) {
    open();
    auto again = sim_->run_task(*node_, node_->reactor().open_disk("disk0", {}));
    EXPECT_EQ(again->error().code, Errc::busy);
    auto missing = sim_->run_task(*node_, node_->reactor().open_disk("disk9", {}));
    EXPECT_EQ(missing->error().code, Errc::not_found);
    disk_.reset();
    again = sim_->run_task(*node_, node_->reactor().open_disk("disk0", {}));
    EXPECT_TRUE(again->has_value());
}

}  // namespace
}  // namespace pf::runtime::sim
