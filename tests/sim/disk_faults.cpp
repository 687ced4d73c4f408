// Disks that lie. A tray runs random operations while its disk loses writes, puts them elsewhere,
// reads from elsewhere or rots; afterwards every block of every generation either reads as the
// model says or fails with an error. Wrong bytes, a wrong hole or a generation that comes back are
// failures. Half of the runs have two shards: a loss in the log (T7) may cost one and not the
// other, which then has to be right. What a lost or misdirected write, or rot, leaves of the bitmap
// or of a table is made on purpose, too: the inspector has to find it every time, and the mount has
// to report the bitmap.
//
// After the faults an honest write and an idle time follow, so that nothing is left in the
// unconfirmed tail, the one window in which a lie of a single disk cannot be seen
// (docs/guarantees.md).
//     disk_faults --runs=600 --seed=1        disk_faults --only=SEED
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/crc32c.hpp"
#include "runtime/sim/simulation.hpp"
#include "tray/format.hpp"
#include "tray/on_disk_test.hpp"
#include "tray_check.hpp"
#include "tray_machine.hpp"
#include "tray_model.hpp"
#include "tray_workload.hpp"

namespace pf::test {
namespace {

using namespace runtime::sim;
using runtime::Task;

enum class Lie : uint8_t {
    lost_write,
    misdirected_write,
    misdirected_read,
    bit_rot,
    lost_root,
    superblock_rot,  // one copy after the other: costs nothing
    damaged_bitmap,
    damaged_table,
    lost_log_write,
    rot_in_log
};
constexpr size_t lies = 10;
constexpr std::array<const char*, lies> lie_names = {
    "lost write",     "misdirected write", "misdirected read", "bit rot",        "lost root write",
    "superblock rot", "damaged bitmap",    "damaged table",    "lost log write", "rot in the log"};

struct Tally {
    uint64_t runs = 0;
    uint64_t injected = 0;
    uint64_t refused_mounts = 0;
    uint64_t failed_blocks = 0;
    uint64_t warned_mounts = 0;
    uint64_t lost_blocks = 0;  // of shards that a loss was found for
    uint64_t good_blocks = 0;
    uint64_t repaired = 0;  // mounts that found a damaged superblock
};

WorkloadOptions workload_options(uint64_t seed, Tag first_tag) {
    Rng rng(seed);
    WorkloadOptions options;
    options.seed = seed;
    options.first_tag = first_tag;
    options.workers = static_cast<uint32_t>(rng.between(1, 8));
    options.shards = 1 + seed / lies % 2;
    options.shard_blocks = static_cast<uint32_t>(rng.between(64, 700));
    options.operations = static_cast<uint32_t>(rng.between(20, 80));
    options.lying_disk = true;
    return options;
}

// Errors that say "the medium is not what it should be"; anything else from a damaged disk is a
// failure.
bool is_detection(const Error& error) {
    return error.code == Errc::corrupt || error.code == Errc::io_error ||
           error.code == Errc::data_lost;
}

Task<std::string> work(Process& process, TrayModel& model, uint64_t seed, bool format,
                       Tag first_tag, bool damaged) {
    auto tray = co_await open_tray(process, format);
    if (!tray) {
        if (damaged && is_detection(tray.error())) co_return std::string();
        co_return "mount: " + tray.error().text();
    }
    Workload workload(**tray, model, workload_options(seed, first_tag));
    Status done = co_await workload.run();
    if (!done && !(damaged && is_detection(done.error())))
        co_return "operation: " + done.error().text();
    co_await runtime::sleep_for(100 * runtime::milliseconds);
    co_return std::string();
}

// One honest write and an idle time: what was acked before is no longer in the unconfirmed tail.
Task<std::string> end_honestly(Process& process, TrayModel& model, uint64_t seed) {
    if (!process.tray || process.tray->failed()) co_return std::string();
    WorkloadOptions options = workload_options(seed, Tag{1} << 48);
    options.workers = 1;
    options.operations = 2;
    options.close_sessions = false;
    options.void_percent = 0;
    options.read_percent = options.generation_percent = options.checkpoint_percent = 0;
    Workload workload(*process.tray, model, options);
    Status done = co_await workload.run();
    if (!done && !is_detection(done.error())) co_return "operation: " + done.error().text();
    co_await runtime::sleep_for(100 * runtime::milliseconds);
    co_return std::string();
}

// One block of one generation: right, detected, or wrong.
Task<std::string> check_block(tray::Tray& tray, tray::ShardId shard, tray::SnapSeq snap_seq,
                              uint32_t block, Tag expected, Tally& tally) {
    auto buffer = co_await runtime::Reactor::current().buffers().allocate(block_bytes);
    uint32_t crc = 0;
    tray::ReadRequest request;
    request.shard = shard;
    request.snap_seq = snap_seq;
    request.block = block;
    request.count = 1;
    request.to = buffer.bytes();
    request.crcs = {&crc, 1};
    Status done = co_await tray.read(request);
    if (!done) {
        const bool lost = done.error().code == Errc::data_lost;
        ++(lost ? tally.lost_blocks : tally.failed_blocks);
        if (is_detection(done.error())) co_return std::string();
        co_return done.error().text();
    }
    ++tally.good_blocks;
    if (crc32c(buffer.bytes()) != block_crc(expected)) {
        co_return fmt::format("generation {} block {} reads as something else", snap_seq, block);
    }
    co_return std::string();
}

bool deletion_unanswered(const TrayModel& model, tray::ShardId shard, tray::SnapSeq snap_seq) {
    for (const auto& [id, operation] : model.in_flight) {
        if (operation.kind == ModelOperation::Kind::delete_generation && operation.shard == shard &&
            operation.snap_seq == snap_seq) {
            return true;
        }
    }
    return false;
}

Task<std::string> check_all(Process& process, const TrayModel& model, Lie lie, Tally& tally) {
    auto tray = co_await open_tray(process, false);
    if (!tray) {
        ++tally.refused_mounts;
        if (lie == Lie::superblock_rot) co_return "mount: " + tray.error().text();
        // A disk that reads superblocks and roots from elsewhere does not even look like a tray.
        const bool unseen = lie == Lie::misdirected_read && tray.error().code == Errc::not_found;
        if (is_detection(tray.error()) || unseen) co_return std::string();
        co_return "mount: " + tray.error().text();
    }
    if (!(*tray)->warnings().empty()) {
        ++tally.warned_mounts;
    } else if (lie == Lie::damaged_bitmap) {
        co_return std::string("the mount did not report a damaged bitmap");
    }
    for (const auto& [shard_id, shard] : model.shards) {
        for (const auto& [snap_seq, generation] : shard.generations) {
            if (generation.nameless || deletion_unanswered(model, shard_id, snap_seq)) continue;
            for (uint32_t block = 0; block < shard.blocks; ++block) {
                // A write in flight when the tray failed may be there or not.
                bool unknown = false;
                for (const auto& [id, operation] : model.in_flight) {
                    unknown = unknown || (operation.shard == shard_id &&
                                          block - operation.block < operation.count);
                }
                if (unknown) continue;
                std::string wrong = co_await check_block(**tray, shard_id, snap_seq, block,
                                                         generation.at(block), tally);
                if (!wrong.empty())
                    co_return fmt::format("shard {} generation {} block {}: {}", shard_id, snap_seq,
                                          block, wrong);
            }
        }
    }
    co_return std::string();
}

DiskFault make_fault(Lie lie, const MachineShape& shape, Rng& rng) {
    DiskFault fault;
    fault.skip = rng.below(rng.below(2) == 0 ? 60 : 300);
    fault.count = 1 + rng.below(3);
    fault.operations = DiskFault::on_write;
    const uint64_t blocks = shape.disk_bytes / block_bytes;
    fault.other_offset = rng.below(blocks - tray::max_write_blocks) * block_bytes;
    switch (lie) {
        case Lie::lost_write:
            fault.kind = FaultKind::lost_write;
            break;
        case Lie::misdirected_write:
            fault.kind = FaultKind::misdirected_write;
            break;
        case Lie::misdirected_read:
            fault.kind = FaultKind::misdirected_read;
            // One: the end of the log is read twice, and two wrong reads there would pass for it.
            fault.operations = DiskFault::on_read;
            fault.count = 1;
            // Half of them where they do most harm: another stretch of the log instead of the right
            // one.
            if (rng.below(2) == 0) {
                fault.offset = uint64_t{tray::log_start_address} * block_bytes;
                fault.length = shape.log_bytes;
                fault.skip = rng.below(24);
                fault.other_offset =
                    fault.offset + rng.below(shape.log_bytes / block_bytes) * block_bytes;
            }
            break;
        case Lie::lost_log_write:
            fault.kind = FaultKind::lost_write;
            fault.offset = uint64_t{tray::log_start_address} * block_bytes;
            fault.length = shape.log_bytes;
            fault.count = 1 + rng.below(2);
            break;
        case Lie::bit_rot:
        case Lie::superblock_rot:
        case Lie::damaged_bitmap:
        case Lie::damaged_table:
        case Lie::rot_in_log:
            break;
        case Lie::lost_root:
            fault.kind = FaultKind::lost_write;
            fault.offset = block_bytes;
            fault.length = uint64_t{2} * block_bytes;
            // From some point on all of them, so that the newest is among the lost.
            fault.skip = rng.below(3);
            fault.count = DiskFault::forever;
            break;
    }
    return fault;
}

// A flip in one of the two newest log blocks comes alone: the last record and the block that
// vouches for it, or that block and the record's data, are the window that T6 states.
void flip_bits(SimDisk& disk, std::vector<uint64_t> offsets, Rng& rng, Tally& tally) {
    const Medium medium = disk.contents();
    tray::OnDisk on_disk(medium);
    const uint64_t newest = on_disk.newest_log_sequence();
    const auto in_newest = [&](uint64_t offset) {
        const uint64_t block = offset / block_bytes;
        return block == on_disk.log_address(newest) || block == on_disk.log_address(newest - 1);
    };
    const auto alone = std::ranges::find_if(offsets, in_newest);
    if (alone != offsets.end()) offsets = {*alone};
    for (const uint64_t offset : offsets) {
        disk.flip_bit(offset, static_cast<unsigned>(rng.below(8)));
        ++tally.injected;
    }
}

// Half of the flips strike where they do most harm, the others anywhere.
void rot(SimDisk& disk, const MachineShape& shape, Rng& rng, Tally& tally) {
    std::vector<uint64_t> offsets(1 + rng.below(8));
    for (uint64_t& offset : offsets) {
        offset = rng.below(shape.disk_bytes);
        const uint64_t log_end = uint64_t{tray::log_start_address} * block_bytes + shape.log_bytes;
        // The start of a block is in use for certain.
        if (rng.below(2) == 0) {
            offset = rng.below(log_end / block_bytes) * block_bytes;
            offset += rng.below(256);
        }
    }
    flip_bits(disk, std::move(offsets), rng, tally);
}

// A block of the newest checkpoint as rot, a lost write (what was there before) or a misdirected
// one (another block) leave it.
void damage_metadata(SimDisk& disk, Lie lie, Rng& rng) {
    Medium medium = disk.contents();
    tray::OnDisk on_disk(medium);
    std::vector<tray::Address> tables;
    for (const auto& entry : on_disk.entries()) tables.push_back(entry.table.address);
    const std::vector<tray::Address> bitmap = on_disk.bitmap();
    const auto& candidates = lie == Lie::damaged_bitmap || tables.empty() ? bitmap : tables;
    const auto& others = lie == Lie::damaged_bitmap && !tables.empty() ? tables : bitmap;
    const uint64_t victim = uint64_t{candidates[rng.below(candidates.size())]} * block_bytes;
    std::vector<std::byte> block(block_bytes);
    switch (rng.below(3)) {
        case 0: {
            const uint64_t offset = victim + rng.below(block_bytes);
            medium.flip_bit(offset, static_cast<unsigned>(rng.below(8)));
            break;
        }
        case 1:
            medium.write(victim, block);
            break;
        default:
            medium.read(uint64_t{others[rng.below(others.size())]} * block_bytes, block);
            medium.write(victim, block);
    }
    disk.replace(std::move(medium));
}

Task<std::string> find_damage() {
    const auto report = co_await inspect_disk();
    if (!report) co_return "inspection: " + report.error().text();
    co_return report->damage.empty() ? "the inspector found no damage" : "";
}

void rot_log(SimDisk& disk, const MachineShape& shape, Rng& rng, Tally& tally) {
    std::vector<uint64_t> offsets(1 + rng.below(2));
    for (uint64_t& offset : offsets)
        offset = tray::log_start_address * uint64_t{block_bytes} + rng.below(shape.log_bytes);
    flip_bits(disk, std::move(offsets), rng, tally);
}

class Run {
  public:
    Run(uint64_t seed, Tally& tally)
        : seed_(seed), rng_(seed), machine_(MachineShape::draw(seed)), tally_(tally) {}

    std::string run(Lie lie) {
        ++tally_.runs;
        machine_.start();
        std::string wrong = task(work(machine_.process(), model_, seed_, true, 2, false), "work");
        if (!wrong.empty()) return wrong;
        machine_.restart();
        wrong = lie == Lie::superblock_rot ? rot_superblocks() : work_with(lie);
        if (!wrong.empty()) return wrong;
        if (rng_.below(2) == 0) machine_.node().power_loss();
        if (lie == Lie::damaged_bitmap || lie == Lie::damaged_table) {
            machine_.node().kill();
            damage_metadata(machine_.disk(), lie, rng_);
            ++tally_.injected;
            machine_.start();
            wrong = task(find_damage(), "inspection");
            if (!wrong.empty()) return wrong;
        }
        machine_.restart();
        machine_.hurry();
        if (lie == Lie::misdirected_read) inject(lie);
        wrong = task(check_all(machine_.process(), model_, lie, tally_), "check");
        for (const auto kind :
             {FaultKind::lost_write, FaultKind::misdirected_write, FaultKind::misdirected_read}) {
            tally_.injected += machine_.disk().injected(kind);
        }
        return wrong;
    }

  private:
    std::string task(Task<std::string> task, const char* what) {
        auto done = machine_.sim().run_task(machine_.node(), std::move(task));
        if (!done) return fmt::format("{} did not end", what);
        return done->empty() ? *done : fmt::format("{}: {}", what, *done);
    }
    void inject(Lie lie) { machine_.disk().inject(make_fault(lie, machine_.shape(), rng_)); }

    std::string work_with(Lie lie) {
        const bool now = lie != Lie::bit_rot && lie != Lie::misdirected_read &&
                         lie != Lie::damaged_bitmap && lie != Lie::damaged_table &&
                         lie != Lie::rot_in_log;
        if (now) inject(lie);
        std::string wrong =
            task(work(machine_.process(), model_, seed_ + 1, false, Tag{1} << 32, true),
                 "work on the lying disk");
        machine_.disk().clear_faults();
        // (An honest checkpoint would make the lost roots good.)
        if (wrong.empty() && lie != Lie::lost_root)
            wrong = task(end_honestly(machine_.process(), model_, seed_ + 2), "the honest end");
        if (lie == Lie::bit_rot) rot(machine_.disk(), machine_.shape(), rng_, tally_);
        if (lie == Lie::rot_in_log) rot_log(machine_.disk(), machine_.shape(), rng_, tally_);
        return wrong;
    }

    std::string rot_superblocks() {
        for (uint64_t round = 0; round < 4; ++round) {
            machine_.node().kill();
            const uint64_t second = machine_.shape().disk_bytes - block_bytes;
            const uint64_t at = (rng_.below(2) == 0 ? 0 : second) + rng_.below(64);
            machine_.disk().flip_bit(at, static_cast<unsigned>(rng_.below(8)));
            ++tally_.injected;
            machine_.start();
            std::string wrong = task(work(machine_.process(), model_, seed_ + 1 + round, false,
                                          Tag{1} << (32 + round), false),
                                     "work after superblock rot");
            if (!wrong.empty()) return wrong;
            if (!machine_.process().tray->warnings().empty()) ++tally_.repaired;
        }
        return {};
    }

    uint64_t seed_;
    Rng rng_;
    Machine machine_;
    TrayModel model_;
    Tally& tally_;
};

int run(uint64_t runs, uint64_t first, bool one) {
    std::array<Tally, lies> tallies{};
    for (uint64_t seed = first; seed < first + (one ? 1 : runs); ++seed) {
        const size_t lie = seed % lies;
        const std::string wrong = Run(seed, tallies[lie]).run(static_cast<Lie>(lie));
        if (!wrong.empty()) {
            fmt::print("FAILED with --only={}: {}\n", seed, wrong);
            return 1;
        }
    }
    fmt::print("{:18} {:>6} {:>9} {:>15} {:>9} {:>14} {:>12} {:>12}\n", "lie", "runs", "injected",
               "mounts refused", "warnings", "blocks refused", "blocks lost", "blocks right");
    bool effective = true;
    for (size_t i = 0; i < lies; ++i) {
        const Tally& t = tallies[i];
        fmt::print("{:18} {:>6} {:>9} {:>15} {:>9} {:>14} {:>12} {:>12}\n", lie_names[i], t.runs,
                   t.injected, t.refused_mounts, t.warned_mounts, t.failed_blocks, t.lost_blocks,
                   t.good_blocks);
        const uint64_t detected =
            t.refused_mounts + t.failed_blocks + t.warned_mounts + t.lost_blocks + t.repaired;
        effective = effective && t.injected > 0 && detected > 0;
    }
    if (!one && !effective) {
        fmt::print("FAILED: a kind of lie was never injected or never detected\n");
        return 1;
    }
    return 0;
}

}  // namespace
}  // namespace pf::test

int main(int argc, char** argv) {
    uint64_t runs = 600, seed = 1;
    bool one = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        if (argument.starts_with("--runs=")) runs = std::strtoull(argument.data() + 7, nullptr, 10);
        if (argument.starts_with("--seed=")) seed = std::strtoull(argument.data() + 7, nullptr, 10);
        if (argument.starts_with("--only="))
            seed = std::strtoull(argument.data() + 7, nullptr, 10), one = true;
    }
    return pf::test::run(runs, seed, one);
}
