// The disk model: what is durable when, what a crash may leave, and each fault.
#include <gtest/gtest.h>

#include <set>

#include "runtime/sim/crash_enumerator.hpp"
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
    for (uint64_t seed = 1; seed <= 20; ++seed) {
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
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        open({.volatile_cache = false}, seed);
        EXPECT_FALSE(disk_->volatile_cache());
        EXPECT_TRUE(write(0, 65536, 7));
        crash();
        EXPECT_EQ(read(0, 65536), 7);
        disk_.reset();
    }
}

}  // namespace
}  // namespace pf::runtime::sim
