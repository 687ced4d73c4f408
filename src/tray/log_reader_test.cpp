// Goal: the reader of the log gives the block of each slot, whatever it reads ahead and whichever
// read fails. Method: a ring whose slots hold their own numbers, read in and out of order.
#include "tray/log_reader.hpp"

#include <gtest/gtest.h>

#include "runtime/sim/simulation.hpp"

namespace pf::tray {
namespace {

using runtime::Task;
using runtime::sim::DiskFault;

constexpr uint64_t ring_blocks = 64;  // four windows

class LogReaderTest : public testing::Test {
  protected:
    LogReaderTest() : disk_(node_.add_disk("disk", model())) {
        superblock_.log_blocks = static_cast<uint32_t>(ring_blocks);
        superblock_.total_blocks = static_cast<uint32_t>(ring_blocks) + 64;
        node_.start([](runtime::sim::SimReactor&) { return std::make_shared<int>(); });
        EXPECT_TRUE(run([this](runtime::Disk& disk) -> Task<Status> { return fill_ring(disk); }));
    }
    // Reads the blocks [first, first + count) in order; each must be the one of its slot.
    Task<Status> read_in_order(LogReader& reader, uint64_t first, uint64_t count) {
        for (uint64_t sequence = first; sequence < first + count; ++sequence) {
            PF_CO_TRY_ASSIGN(const Bytes bytes, co_await reader.read(sequence));
            EXPECT_EQ(load<uint64_t>(bytes), 1 + sequence % ring_blocks);
        }
        co_return Status{};
    }
    template <class Use>
    Status run(Use use) {
        const std::optional<Status> done = sim_.run_task(node_, with_disk(use));
        EXPECT_TRUE(done.has_value());
        return *done;
    }
    // `use(reader)` on a reader that is stopped afterwards.
    template <class Use>
    Status read(Use use) {
        return run([&](runtime::Disk& disk) { return with_reader(disk, use); });
    }
    [[nodiscard]] uint64_t reads() const {
        return disk_.counters().operations[static_cast<size_t>(runtime::DiskOp::Kind::read)];
    }

    runtime::sim::Simulation sim_{{.seed = 1, .trace_contents = false}};
    runtime::sim::SimNode& node_ = sim_.add_node("node");
    runtime::sim::SimDisk& disk_;
    Superblock superblock_;

  private:
    static runtime::sim::DiskModel model() {
        runtime::sim::DiskModel model;
        model.size_bytes = uint64_t{1} << 20;
        return model;
    }
    template <class Use>
    static Task<Status> with_disk(Use& use) {
        auto disk = co_await runtime::Reactor::current().open_disk("disk", {});
        if (!disk) co_return std::unexpected<Error>(disk.error());
        co_return co_await use(**disk);
    }
    template <class Use>
    Task<Status> with_reader(runtime::Disk& disk, Use& use) {
        LogReader reader(disk, superblock_);
        Status done = co_await use(reader);
        co_await reader.stop();
        EXPECT_EQ(disk_.in_flight(), 0u);
        co_return done;
    }
    Task<Status> fill_ring(runtime::Disk& disk) {
        const runtime::Buffer buffer =
            co_await runtime::Reactor::current().buffers().allocate(block_bytes);
        for (uint64_t slot = 0; slot < ring_blocks; ++slot) {
            store(buffer.bytes(), 1 + slot);
            PF_CO_TRY(
                co_await disk.write((log_start_address + slot) * block_bytes, buffer.bytes()));
        }
        co_return Status{};
    }
};

TEST_F(LogReaderTest, ReadsOnAroundTheRingAndEachStretchOnce) {
    const uint64_t before = reads();
    EXPECT_TRUE(
        read([this](LogReader& reader) { return read_in_order(reader, 5, ring_blocks - 5); }));
    EXPECT_EQ(reads() - before, 5u) << "four windows, and one ahead of the last";
    EXPECT_TRUE(
        read([this](LogReader& reader) { return read_in_order(reader, 40, 3 * ring_blocks); }));
}

TEST_F(LogReaderTest, OneReadIsInFlightWhileTheLastIsUsed) {
    EXPECT_TRUE(read([this](LogReader& reader) -> Task<Status> {
        PF_CO_TRY(co_await read_in_order(reader, 0, 16));
        EXPECT_EQ(disk_.in_flight(), 0u) << "one window may be all that is wanted";
        PF_CO_TRY(co_await read_in_order(reader, 16, 1));
        EXPECT_EQ(disk_.in_flight(), 1u);
        // Out of order: what was read ahead is not taken for it.
        PF_CO_TRY(co_await read_in_order(reader, 3, 1));
        co_return co_await read_in_order(reader, 30, ring_blocks);
    }));
}

TEST_F(LogReaderTest, AnyReadMayFailOnce) {
    for (uint64_t n = 0;; ++n) {
        ASSERT_LT(n, 100u);
        disk_.clear_faults();
        DiskFault fault;
        fault.operations = DiskFault::on_read;
        fault.skip = n;
        disk_.inject(fault);
        const uint64_t injected = disk_.injected(runtime::sim::FaultKind::error);
        EXPECT_TRUE(read([this](LogReader& reader) {
            return read_in_order(reader, 8, ring_blocks);
        })) << "read "
            << n;
        if (disk_.injected(runtime::sim::FaultKind::error) == injected) break;
    }
}

// A block that stays unreadable comes as zeros, and the rest of its stretch as it is.
TEST_F(LogReaderTest, AnUnreadableBlockIsZeros) {
    DiskFault fault;
    fault.operations = DiskFault::on_read;
    fault.offset = uint64_t{log_start_address + 37} * block_bytes;
    fault.length = block_bytes;
    fault.count = DiskFault::forever;
    disk_.inject(fault);
    EXPECT_TRUE(read([this](LogReader& reader) -> Task<Status> {
        PF_CO_TRY(co_await read_in_order(reader, 0, 37));
        PF_CO_TRY_ASSIGN(const Bytes bytes, co_await reader.read(37));
        EXPECT_EQ(load<uint64_t>(bytes), 0u);
        co_return co_await read_in_order(reader, 38, 20);
    }));
}

}  // namespace
}  // namespace pf::tray
