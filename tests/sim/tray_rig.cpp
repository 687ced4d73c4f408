#include "tray_rig.hpp"

#include "base/crc32c.hpp"
#include "tray_machine.hpp"

namespace pf::test {

using namespace runtime::sim;
using runtime::Task;

namespace {
DiskModel disk_model(uint64_t bytes) {
    DiskModel model;
    model.size_bytes = bytes;
    return model;
}

tray::ShardState new_shard(tray::ShardId id) {
    tray::ShardState state;
    state.shard = id;
    state.replica = Uuid::from_random(5, 6);
    state.blocks = TrayRig::shard_blocks;
    state.epoch = 1;
    state.snap_seq = 1;
    return state;
}
}  // namespace

TrayRig::TrayRig(uint64_t disk_bytes, uint64_t log_bytes)
    : sim({.seed = 1, .buffer_bytes = size_t{16} << 20}),
      node(sim.add_node("node")),
      disk(node.add_disk("disk", disk_model(disk_bytes))),
      log_bytes_(log_bytes) {}

Task<Status> TrayRig::mount(bool format) {
    auto& reactor = runtime::Reactor::current();
    runtime::DiskOptions disk_options;
    PF_CO_TRY_ASSIGN(auto device, co_await reactor.open_disk("disk", disk_options));
    if (format) {
        tray::FormatOptions options;
        options.cluster = cluster_uuid;
        options.tray = Uuid::from_random(3, 4);
        options.log_bytes = log_bytes_;
        PF_CO_TRY(co_await tray::Tray::format(*device, options));
    }
    tray::MountOptions options;
    options.cluster = cluster_uuid;
    options.discard = discard;
    PF_CO_TRY_ASSIGN(*tray_, co_await tray::Tray::mount(std::move(device), options));
    if (!format) co_return Status{};
    co_return co_await tray().create_shard(new_shard(shard));
}

Status TrayRig::add_shard(tray::ShardId id) {
    return run(tray().create_shard(new_shard(id)));
}

Status TrayRig::create() {
    node.start([this](SimReactor&) -> std::shared_ptr<void> {
        tray_ = std::make_shared<std::unique_ptr<tray::Tray>>();
        return tray_;
    });
    return run(mount(true));
}

Status TrayRig::boot() {
    node.restart();
    return run(mount(false));
}

void TrayRig::crash_to(Medium medium) {
    tray_.reset();
    node.kill();
    disk.clear_faults();
    disk.replace(std::move(medium));
}

Status TrayRig::reboot() {
    tray_.reset();
    node.kill();
    disk.clear_faults();
    return boot();
}

Status TrayRig::run(Task<Status> task) {
    auto done = sim.run_task(node, std::move(task), 60 * runtime::seconds);
    return done.has_value() ? *done : Status(fail(Errc::timed_out));
}

Task<Status> TrayRig::write_task(RigWrite write) {
    runtime::Buffer data;
    std::vector<uint32_t> crcs;
    iovec whole{};
    tray::WriteRequest request;
    if (write.kind == tray::WriteKind::data) {
        const size_t bytes = size_t{write.count} * block_bytes;
        data = co_await runtime::Reactor::current().buffers().allocate(bytes);
        for (uint32_t i = 0; i < write.count; ++i) {
            fill_block(write.tag + i, data.bytes().subspan(size_t{i} * block_bytes, block_bytes));
            crcs.push_back(block_crc(write.tag + i));
        }
        whole = {data.data(), bytes};
        request.data = {&whole, 1};
        request.crcs = crcs;
    }
    PF_CO_TRY_ASSIGN(tray::Reservation room,
                     tray().reserve(write.shard, head, write.block, write.count, write.kind));
    request.shard = write.shard;
    request.snap_seq = head;
    request.position = {1, next_sequence_++};
    request.request = write.request;
    request.kind = write.kind;
    request.block = write.block;
    request.count = write.count;
    PF_CO_TRY_ASSIGN(const tray::Ticket ticket, co_await tray().write(request, room));
    if (write.commit)
        tray().commit(ticket);
    else
        uncommitted_.push_back(ticket);
    co_return Status{};
}

void TrayRig::commit(size_t index) {
    node.call([&] { tray().commit(uncommitted_[index]); });
}

Status TrayRig::write(const RigWrite& write) {
    return run(write_task(write));
}

Task<void> TrayRig::issue(Task<Status> task, std::shared_ptr<Issued> issued) {
    Status status = co_await task;
    issued->status = std::move(status);
}

std::shared_ptr<Issued> TrayRig::begin(Task<Status> task) {
    auto issued = std::make_shared<Issued>();
    node.reactor().spawn(issue(std::move(task), issued));
    return issued;
}

std::shared_ptr<Issued> TrayRig::begin(const RigWrite& write) {
    return begin(write_task(write));
}

namespace {
Task<Status> read_block(tray::Tray& tray, tray::ShardId shard, tray::SnapSeq snap_seq,
                        uint32_t block, uint32_t& crc) {
    runtime::Buffer data = co_await runtime::Reactor::current().buffers().allocate(block_bytes);
    uint32_t told = 0;
    tray::ReadRequest request;
    request.shard = shard;
    request.snap_seq = snap_seq;
    request.block = block;
    request.count = 1;
    request.to = data.bytes();
    request.crcs = {&told, 1};
    PF_CO_TRY(co_await tray.read(request));
    crc = crc32c(data.bytes());
    co_return Status{};
}
}  // namespace

Result<Tag> TrayRig::read(uint32_t block, const std::vector<Tag>& candidates,
                          tray::SnapSeq snap_seq, tray::ShardId shard_id) {
    uint32_t crc = 0;
    PF_TRY(run(read_block(tray(), shard_id, snap_seq == 0 ? head : snap_seq, block, crc)));
    for (const Tag tag : candidates) {
        if (block_crc(tag) == crc) return tag;
    }
    return fail(Errc::internal, "the block holds something else");
}

bool TrayRig::in_log(uint64_t offset) const {
    const uint64_t block = offset / block_bytes;
    return block >= tray::log_start_address &&
           block < tray::log_start_address + log_bytes_ / block_bytes;
}

void TrayRig::slow_log(uint64_t count) {
    DiskFault fault;
    fault.kind = FaultKind::slow;
    fault.operations = DiskFault::on_write;
    fault.offset = uint64_t{tray::log_start_address} * block_bytes;
    fault.length = log_bytes_;
    fault.count = count;
    fault.slow_extra = 5 * runtime::seconds;
    disk.inject(fault);
}

void TrayRig::slow_data(uint64_t count) {
    DiskFault fault;
    fault.kind = FaultKind::slow;
    fault.operations = DiskFault::on_write;
    fault.offset = uint64_t{tray::log_start_address} * block_bytes + log_bytes_;
    fault.count = count;
    fault.slow_extra = 5 * runtime::seconds;
    fault.length = disk.model().size_bytes - fault.offset;
    disk.inject(fault);
}

Medium TrayRig::state_with(const std::function<bool(const UnflushedWrite&)>& persists) const {
    const CrashPoint point = disk.capture();
    Medium medium = point.durable;
    for (const UnflushedWrite& write : point.writes) {
        if (persists(write)) medium.apply(*write.data);
    }
    return medium;
}

uint64_t TrayRig::newest_log_offset() const {
    std::vector<std::byte> bytes(block_bytes);
    disk.contents().read(0, bytes);
    const auto superblock = tray::decode_superblock(bytes);
    PF_ASSERT(superblock.has_value());
    uint64_t best = 0;
    uint64_t best_sequence = 0;
    for (uint64_t i = 0; i < log_bytes_ / block_bytes; ++i) {
        const uint64_t offset = (tray::log_start_address + i) * block_bytes;
        disk.contents().read(offset, bytes);
        const auto block = tray::decode_log_block(bytes, *superblock);
        if (!block || block->records.empty() || block->header.sequence < best_sequence) continue;
        // A block of commit marks only says nothing that an ack rests on.
        const auto type = static_cast<tray::RecordType>(block->records[0]);
        if (type == tray::RecordType::commit) continue;
        best = offset;
        best_sequence = block->header.sequence;
    }
    return best;
}

}  // namespace pf::test
