// What the tray's tests share: one simulated machine with a disk and a tray on it, and calls that
// run the simulation until they have their answer.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/crc32c.hpp"
#include "runtime/sim/simulation.hpp"
#include "tray/inspect.hpp"
#include "tray/tray.hpp"

namespace pf::tray {

inline const Uuid rig_cluster = Uuid::from_random(1, 2);

struct RigOptions {
    uint64_t disk_bytes = uint64_t{16} << 20;
    uint64_t log_bytes = uint64_t{64} << 10;
    uint64_t seed = 1;
    bool volatile_cache = true;
    bool discard = false;
    uint64_t cache_bytes = uint64_t{64} << 20;
    uint64_t max_tables = 0;
};

class TrayRig {
  public:
    explicit TrayRig(RigOptions options = {})
        : options_(options),
          sim_({.seed = options.seed, .trace_contents = false}),
          node_(sim_.add_node("node")),
          disk_(node_.add_disk("disk", model(options))) {
        start_process();
    }

    runtime::sim::Simulation& sim() { return sim_; }
    runtime::sim::SimNode& node() { return node_; }
    runtime::sim::SimDisk& disk() { return disk_; }
    Tray& tray() { return **tray_; }
    const Tray& tray() const { return **tray_; }

    template <class T>
    T run(runtime::Task<T> task) {
        std::optional<T> result = sim_.run_task(node_, std::move(task));
        PF_ASSERT(result.has_value());
        return std::move(*result);
    }

    Status format(bool force = false) { return run(do_format(force)); }
    Status mount() { return run(do_mount()); }
    void stop() {
        EXPECT_TRUE(run(tray().stop()));
        node_.call([this] { tray_->reset(); });
    }
    // The process dies with what it had in flight; `power` also loses the volatile cache.
    void crash(bool power) {
        if (power)
            node_.power_loss();
        else
            node_.kill();
        start_process();
    }
    Status create_shard(ShardId id, uint32_t blocks, GenerationId parent = {}) {
        ShardState state;
        state.shard = id;
        state.blocks = blocks;
        state.snap_seq = 1;
        state.epoch = 1;
        return run(tray().create_shard(state, parent));
    }
    // Writes and commits; block i of the write is filled from `tag` + i.
    Status write(ShardId shard, SnapSeq snap_seq, uint32_t block, uint32_t count, uint32_t tag,
                 WriteKind kind = WriteKind::data, RequestName request = {}) {
        return run(do_write(shard, snap_seq, block, count, tag, kind, request));
    }
    // The tag of each block; 0 for zeros. An error is returned as it is.
    Result<std::vector<uint32_t>> read(ShardId shard, SnapSeq snap_seq, uint32_t block,
                                       uint32_t count) {
        return run(do_read(shard, snap_seq, block, count));
    }
    void settle(runtime::Nanos time = 50 * runtime::milliseconds) { sim_.run_for(time); }
    // free + user + metadata + held == capacity, when nothing is in flight.
    void check_space() {
        const Usage usage = tray().usage();
        EXPECT_EQ(usage.free_blocks + usage.user_blocks + usage.metadata_blocks + usage.held_blocks,
                  usage.capacity_blocks);
    }

    runtime::Task<Status> do_write(ShardId shard, SnapSeq snap_seq, uint32_t block, uint32_t count,
                                   uint32_t tag, WriteKind kind, RequestName name,
                                   bool commit = true) {
        Result<Reservation> reservation = tray().reserve(shard, snap_seq, block, count, kind);
        if (!reservation) co_return std::unexpected<Error>(reservation.error());
        runtime::Buffer buffer;
        std::vector<uint32_t> crcs;
        WriteRequest request;
        request.shard = shard;
        request.snap_seq = snap_seq;
        request.position = {1, ++sequence_};
        request.request = name;
        request.kind = kind;
        request.block = block;
        request.count = count;
        iovec memory{};
        if (kind == WriteKind::data) {
            auto& pool = runtime::Reactor::current().buffers();
            buffer = co_await pool.allocate(size_t{count} * block_bytes);
            for (uint32_t i = 0; i < count; ++i) {
                const MutableBytes to =
                    buffer.bytes().subspan(size_t{i} * block_bytes, block_bytes);
                fill(to, tag + i);
                crcs.push_back(crc32c(to));
            }
            memory = {buffer.data(), buffer.size()};
            request.data = {&memory, 1};
            request.crcs = crcs;
        }
        Result<Ticket> ticket = co_await tray().write(request, *reservation);
        if (!ticket) co_return std::unexpected<Error>(ticket.error());
        if (commit)
            tray().commit(*ticket);
        else
            held_.push_back(*ticket);
        co_return Status{};
    }
    std::vector<Ticket>& uncommitted() { return held_; }

    static void fill(MutableBytes to, uint32_t tag) {
        for (size_t at = 0; at < to.size(); at += 8) {
            store(to, tag, at);
            store(to, static_cast<uint32_t>(at) ^ (tag * 2654435761u), at + 4);
        }
    }

    runtime::Task<Result<std::vector<uint32_t>>> do_read(ShardId shard, SnapSeq snap_seq,
                                                         uint32_t block, uint32_t count) {
        auto& pool = runtime::Reactor::current().buffers();
        runtime::Buffer buffer = co_await pool.allocate(size_t{count} * block_bytes);
        std::vector<uint32_t> crcs(count);
        ReadRequest request;
        request.shard = shard;
        request.snap_seq = snap_seq;
        request.block = block;
        request.count = count;
        request.to = buffer.bytes();
        request.crcs = crcs;
        const Status status = co_await tray().read(request);
        if (!status) co_return std::unexpected<Error>(status.error());
        std::vector<uint32_t> tags;
        std::vector<std::byte> expected(block_bytes);
        for (uint32_t i = 0; i < count; ++i) {
            const MutableBytes from = buffer.bytes().subspan(size_t{i} * block_bytes, block_bytes);
            const auto tag = load<uint32_t>(from);
            if (tag == 0)
                std::ranges::fill(expected, std::byte{0});
            else
                fill(expected, tag);
            EXPECT_EQ(std::memcmp(expected.data(), from.data(), block_bytes), 0);
            EXPECT_EQ(crcs[i], crc32c(from));
            tags.push_back(tag);
        }
        co_return tags;
    }

  private:
    static runtime::sim::DiskModel model(const RigOptions& options) {
        runtime::sim::DiskModel model;
        model.size_bytes = options.disk_bytes;
        model.volatile_cache = options.volatile_cache;
        return model;
    }
    // The tray belongs to the process and dies with it.
    void start_process() {
        node_.start([this](runtime::sim::SimReactor&) {
            auto holder = std::make_shared<std::unique_ptr<Tray>>();
            tray_ = holder.get();
            return holder;
        });
    }
    runtime::Task<Status> do_format(bool force) {
        runtime::DiskOptions disk_options;
        auto disk = co_await runtime::Reactor::current().open_disk("disk", disk_options);
        if (!disk) co_return std::unexpected<Error>(disk.error());
        FormatOptions options;
        options.cluster = rig_cluster;
        options.tray = Uuid::from_random(3, 4);
        options.log_bytes = options_.log_bytes;
        options.force = force;
        co_return co_await Tray::format(**disk, options);
    }
    runtime::Task<Status> do_mount() {
        runtime::DiskOptions disk_options;
        auto disk = co_await runtime::Reactor::current().open_disk("disk", disk_options);
        if (!disk) co_return std::unexpected<Error>(disk.error());
        MountOptions options;
        options.cluster = rig_cluster;
        options.discard = options_.discard;
        options.cache_bytes = options_.cache_bytes;
        options.max_tables = options_.max_tables;
        auto mounted = co_await Tray::mount(std::move(*disk), options);
        if (!mounted) co_return std::unexpected<Error>(mounted.error());
        *tray_ = std::move(*mounted);
        co_return Status{};
    }

    RigOptions options_;
    runtime::sim::Simulation sim_;
    runtime::sim::SimNode& node_;
    runtime::sim::SimDisk& disk_;
    std::unique_ptr<Tray>* tray_ = nullptr;
    uint64_t sequence_ = 0;
    std::vector<Ticket> held_;
};

// What an inspection of the disk of a rig says, whose tray is not mounted.
inline runtime::Task<Result<VerifyReport>> verify_disk() {
    runtime::DiskOptions options;
    options.read_only = true;
    auto disk = co_await runtime::Reactor::current().open_disk("disk", options);
    if (!disk) co_return std::unexpected<Error>(disk.error());
    Inspector inspector(std::move(*disk));
    co_return co_await inspector.verify();
}

}  // namespace pf::tray
