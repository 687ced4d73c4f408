// A tray on one simulated disk, driven step by step: what the rule scenarios are written with.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/sim/crash_enumerator.hpp"
#include "runtime/sim/simulation.hpp"
#include "tray/format.hpp"
#include "tray/log_format.hpp"
#include "tray/tray.hpp"
#include "tray_model.hpp"

namespace pf::test {

// What was started; `status` is set when it ends.
struct Issued {
    std::optional<Status> status;
    [[nodiscard]] bool acked() const { return status && status->has_value(); }
};

inline constexpr tray::ShardId rig_shard = 7;

struct RigWrite {
    uint32_t block = 0;
    uint32_t count = 1;
    Tag tag = 0;  // block i of the write holds tag + i
    tray::WriteKind kind = tray::WriteKind::data;
    tray::RequestName request{};
    bool commit = true;
    tray::ShardId shard = rig_shard;
};

class TrayRig {
  public:
    static constexpr tray::ShardId shard = rig_shard;
    static constexpr uint32_t shard_blocks = 4 * blocks_per_chunk;

    explicit TrayRig(uint64_t disk_bytes = uint64_t{6} << 20, uint64_t log_bytes = 64u << 10);

    // Formats and makes the shard; mounts what is on the disk.
    [[nodiscard]] Status create();
    [[nodiscard]] Status boot();
    [[nodiscard]] Status add_shard(tray::ShardId id);
    [[nodiscard]] bool damaged(tray::ShardId id) { return tray().shard_state(id)->damaged; }
    // SIGKILL, then the disk holds `medium`.
    void crash_to(runtime::sim::Medium medium);
    [[nodiscard]] Status reboot();  // SIGKILL and boot

    [[nodiscard]] Status write(const RigWrite& write);
    [[nodiscard]] std::shared_ptr<Issued> begin(const RigWrite& write);
    [[nodiscard]] std::shared_ptr<Issued> begin(runtime::Task<Status> task);
    // The index-th of the writes that did not ask for it, in the order of their acks.
    void commit(size_t index);
    // The tag that the block holds, or the error. Anything unknown fails as `internal`.
    [[nodiscard]] Result<Tag> read(uint32_t block, const std::vector<Tag>& candidates,
                                   tray::SnapSeq snap_seq = 0, tray::ShardId shard_id = rig_shard);
    [[nodiscard]] Status run(runtime::Task<Status> task);
    void idle(runtime::Nanos duration = 100 * runtime::milliseconds) { sim.run_for(duration); }

    // Slows the next `count` writes to the log, or to everything behind it.
    void slow_log(uint64_t count);
    void slow_data(uint64_t count);
    [[nodiscard]] bool in_log(uint64_t offset) const;
    // What a power loss could leave: the durable bytes and the chosen writes.
    [[nodiscard]] runtime::sim::Medium state_with(
        const std::function<bool(const runtime::sim::UnflushedWrite&)>& persists) const;
    // Address of the newest log block that holds records, and its header.
    [[nodiscard]] uint64_t newest_log_offset() const;

    [[nodiscard]] tray::Tray& tray() { return **tray_; }

    tray::SnapSeq head = 1;
    bool discard = false;  // the next mount trims what it frees
    runtime::sim::Simulation sim;
    runtime::sim::SimNode& node;
    runtime::sim::SimDisk& disk;

  private:
    [[nodiscard]] runtime::Task<Status> mount(bool format);
    [[nodiscard]] runtime::Task<Status> write_task(RigWrite write);
    [[nodiscard]] runtime::Task<void> issue(runtime::Task<Status> task,
                                            std::shared_ptr<Issued> issued);

    uint64_t log_bytes_;
    uint64_t next_sequence_ = 1;
    std::vector<tray::Ticket> uncommitted_;
    std::shared_ptr<std::unique_ptr<tray::Tray>> tray_;
};

}  // namespace pf::test
