// Operations of the simulated disk: submission, completion, cache. Faults and crashes have their
// own files.
#include "runtime/sim/sim_disk.hpp"

#include <cstring>

#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {

SimDisk::SimDisk(Simulation& simulation, uint32_t id, std::string name, DiskModel model)
    : simulation_(simulation),
      id_(id),
      name_(std::move(name)),
      model_(model),
      current_(model.size_bytes),
      durable_(model.size_bytes) {}

// ---- Submission

void SimDisk::submit(SimReactor& reactor, DiskOp& op) {
    const uint64_t size = current_.size_bytes();
    PF_ASSERT(op.complete != nullptr);
    PF_ASSERT(op.offset % block_bytes == 0 && op.length % block_bytes == 0);
    ++counters_.operations[static_cast<size_t>(op.kind)];

    const uint32_t index = take_slot();
    InFlight& slot = slots_[index];
    slot.op = &op;
    slot.reactor = &reactor;
    slot.kind = op.kind;
    slot.sequence = next_sequence_++;
    slot.completed_before = slot.sequence;
    Nanos latency = draw_latency(op);
    if (op.offset > size || op.length > size - op.offset) {
        slot.error = EINVAL;
    } else {
        if (op.kind == DiskOp::Kind::read) counters_.read_bytes += op.length;
        if (op.kind == DiskOp::Kind::write) counters_.written_bytes += op.length;
        if (op.kind == DiskOp::Kind::write || op.kind == DiskOp::Kind::discard) {
            slot.data = take_data(op);
        }
        choose_fault(op, slot, latency);
        const int scripted = reactor.node().count_operation();
        if (scripted != 0) {
            slot.error = scripted;
            slot.faulty = false;
        }
        // Flushes reach the medium in the order they began. So what this one loses may be lost long
        // before it says so, and before a later one succeeds.
        const bool fails = op.kind == DiskOp::Kind::flush && slot.error != 0;
        if (fails && !earlier_flush_in_flight(slot) && simulation_.rng().below(2) == 0)
            fail_flush(slot);
    }
    simulation_.trace(TraceKind::disk_submit, id_, op.offset, op.length);
    if (slot.data && simulation_.options().trace_contents) {
        for (const PageRef& page : slot.data->pages) simulation_.trace_word(page.get()->hash());
    }
    const uint64_t token = uint64_t{slot.generation} << 32 | index;
    simulation_.schedule(simulation_.now() + latency, *this, token);
    if (slot.data) changed();
}

Nanos SimDisk::draw_latency(const DiskOp& op) {
    const Latency by_kind[] = {model_.read, model_.write, model_.flush, model_.discard};
    return by_kind[static_cast<size_t>(op.kind)].draw(simulation_.rng());
}

std::shared_ptr<const WriteData> SimDisk::take_data(const DiskOp& op) const {
    auto data = std::make_shared<WriteData>();
    data->offset = op.offset;
    data->length = op.length;
    if (op.kind == DiskOp::Kind::discard) return data;
    PF_ASSERT(op.iov_count >= 1 && op.iov_count <= DiskOp::max_iovecs);
    data->pages.reserve(op.length / block_bytes);
    for (uint32_t i = 0; i < op.iov_count; ++i) {
        const iovec& part = op.iov[i];
        PF_ASSERT(part.iov_len % block_bytes == 0);
        PF_ASSERT(reinterpret_cast<uintptr_t>(part.iov_base) % block_bytes == 0);
        const auto* from = static_cast<const std::byte*>(part.iov_base);
        for (size_t at = 0; at < part.iov_len; at += block_bytes) {
            PageRef page;
            std::memcpy(page.own().bytes.data(), from + at, block_bytes);
            data->pages.push_back(std::move(page));
        }
    }
    PF_ASSERT(data->pages.size() * block_bytes == op.length);
    return data;
}

uint32_t SimDisk::take_slot() {
    if (free_slots_.empty()) {
        free_slots_.push_back(static_cast<uint32_t>(slots_.size()));
        slots_.emplace_back();
    }
    const uint32_t index = free_slots_.back();
    free_slots_.pop_back();
    const uint32_t generation = slots_[index].generation;
    slots_[index] = InFlight{};
    slots_[index].generation = generation;
    slots_[index].used = true;
    ++in_flight_count_;
    return index;
}

void SimDisk::free_slot(InFlight& slot) {
    slot.used = false;
    slot.op = nullptr;
    slot.data.reset();
    ++slot.generation;
    --in_flight_count_;
    free_slots_.push_back(static_cast<uint32_t>(&slot - slots_.data()));
}

// ---- Completion

void SimDisk::on_event(uint64_t token) {
    InFlight& slot = slots_[token & UINT32_MAX];
    if (!slot.used || slot.generation != token >> 32) return;
    DiskOp& op = *slot.op;
    SimReactor& reactor = *slot.reactor;
    switch (slot.kind) {
        case DiskOp::Kind::read:
            complete_read(slot);
            break;
        case DiskOp::Kind::flush:
            complete_flush(slot);
            break;
        case DiskOp::Kind::write:
        case DiskOp::Kind::discard:
            complete_write(slot);
            break;
    }
    op.result = -slot.error;
    simulation_.trace(TraceKind::disk_complete, id_, op.offset, static_cast<uint64_t>(slot.error));
    const bool has_changed = slot.kind != DiskOp::Kind::read;
    free_slot(slot);
    reactor.arrived(op);
    if (has_changed) changed();
}

void SimDisk::complete_read(InFlight& slot) {
    const DiskOp& op = *slot.op;
    if (slot.error != 0) return;
    uint64_t offset = op.offset;
    if (slot.faulty && slot.fault == FaultKind::misdirected_read) offset = slot.other_offset;
    if (slot.faulty && slot.fault == FaultKind::bit_rot) {
        Rng& rng = simulation_.rng();
        const uint64_t at = op.offset + rng.below(op.length);
        flip_bit(at, static_cast<unsigned>(rng.below(8)));
    }
    for (uint32_t i = 0; i < op.iov_count; ++i) {
        current_.read(offset, {static_cast<std::byte*>(op.iov[i].iov_base), op.iov[i].iov_len});
        offset += op.iov[i].iov_len;
    }
}

void SimDisk::complete_write(InFlight& slot) {
    const DiskOp& op = *slot.op;
    if (!slot.data) return;
    size_t page = 0;
    for (uint32_t i = 0; i < op.iov_count && op.kind == DiskOp::Kind::write; ++i) {
        const auto* memory = static_cast<const std::byte*>(op.iov[i].iov_base);
        for (size_t at = 0; at < op.iov[i].iov_len; at += block_bytes, ++page) {
            const auto& taken = slot.data->pages[page].get()->bytes;
            // A device may fetch the bytes at any time while the write is in flight.
            PF_ASSERT(std::memcmp(memory + at, taken.data(), block_bytes) == 0);
        }
    }
    if (slot.error != 0) return cache_partial_write(*slot.data);
    std::shared_ptr<const WriteData> data = slot.data;
    if (slot.faulty) {
        if (slot.fault != FaultKind::misdirected_write) return;
        auto moved = std::make_shared<WriteData>(*slot.data);
        moved->offset = slot.other_offset;
        data = std::move(moved);
    }
    if (op.write_through) {
        write_through(*data);
    } else {
        cache_write(std::move(data));
    }
}

// What the cache holds of the same range is older, and must not come back over it.
void SimDisk::write_through(const WriteData& data) {
    supersede(unflushed_, data);  // the rest of what is stuck stays so
    const auto overlaps = [&data](const UnflushedWrite& write) {
        return write.data->offset < data.offset + data.length &&
               data.offset < write.data->offset + write.data->length;
    };
    for (const UnflushedWrite& write : unflushed_) {
        if (!overlaps(write)) continue;
        durable_.apply(*write.data);
        unflushed_bytes_ -= write.data->length;
    }
    std::erase_if(unflushed_, overlaps);
    current_.apply(data);
    durable_.apply(data);
}

void SimDisk::cache_write(std::shared_ptr<const WriteData> data) {
    current_.apply(*data);
    if (!model_.volatile_cache) {
        durable_.apply(*data);
        return;
    }
    unflushed_bytes_ += data->length;
    unflushed_.push_back({std::move(data), true, next_sequence_++, false});
    trim_cache();
}

// After a failed write anything may be there: each sector is the old or the new one.
void SimDisk::cache_partial_write(const WriteData& data) {
    Rng& rng = simulation_.rng();
    const uint64_t choice = rng.below(3);
    if (choice == 0) return;
    for (uint64_t sector = 0; sector < data.sectors(); ++sector) {
        if (choice == 1 || rng.below(2) == 0) current_.apply_sector(data, sector);
    }
    auto merged = std::make_shared<WriteData>(data);
    for (size_t i = 0; i < merged->pages.size(); ++i) {
        current_.read(data.offset + i * block_bytes, merged->pages[i].own().bytes);
        merged->pages[i].own().hashed = false;
    }
    if (merged->pages.empty() && choice != 1) return;
    cache_write(std::move(merged));
}

void SimDisk::trim_cache() {
    while (unflushed_bytes_ > model_.cache_bytes) {
        const UnflushedWrite oldest = std::move(unflushed_.front());
        unflushed_.pop_front();
        unflushed_bytes_ -= oldest.data->length;
        durable_.apply(*oldest.data);
    }
}

bool SimDisk::earlier_flush_in_flight(const InFlight& slot) const {
    return std::ranges::any_of(slots_, [&](const InFlight& other) {
        return other.used && &other != &slot && other.kind == DiskOp::Kind::flush;
    });
}

void SimDisk::fail_flush(const InFlight& slot) {
    for (UnflushedWrite& write : unflushed_) {
        if (write.sequence < slot.completed_before) write.stuck = true;
    }
}

// The cache has one version of each place: what a failed flush left of an older write is gone where
// a newer one was written over it. The rest still waits for luck.
void SimDisk::supersede(std::deque<UnflushedWrite>& older, const WriteData& newer) {
    const uint64_t newer_end = newer.offset + newer.length;
    std::deque<UnflushedWrite> left;
    for (UnflushedWrite& write : older) {
        const uint64_t begin = write.data->offset;
        const uint64_t end = begin + write.data->length;
        if (!write.stuck || end <= newer.offset || newer_end <= begin) {
            left.push_back(std::move(write));
            continue;
        }
        unflushed_bytes_ -= end - begin;
        // Whole pages, counted from the start of the write.
        const uint64_t before = (std::max(newer.offset, begin) - begin) / block_bytes * block_bytes;
        const uint64_t after = round_up(std::min(newer_end, end) - begin, block_bytes);
        const auto keep = [&](uint64_t from, uint64_t to) {
            if (from >= to) return;
            auto part = std::make_shared<WriteData>();
            part->offset = begin + from;
            part->length = to - from;
            const auto& pages = write.data->pages;
            for (uint64_t at = from; at < to && !pages.empty(); at += block_bytes)
                part->pages.push_back(pages[at / block_bytes]);
            unflushed_bytes_ += part->length;
            left.push_back({std::move(part), write.completed, write.sequence, true});
        };
        keep(0, before);
        keep(after, end - begin);
    }
    older.swap(left);
}

void SimDisk::complete_flush(InFlight& slot) {
    if (slot.error != 0) return fail_flush(slot);
    std::deque<UnflushedWrite> kept;
    for (UnflushedWrite& write : unflushed_) {
        if (write.sequence < slot.completed_before && !write.stuck) {
            supersede(kept, *write.data);
            durable_.apply(*write.data);
            unflushed_bytes_ -= write.data->length;
        } else {
            kept.push_back(std::move(write));
        }
    }
    unflushed_.swap(kept);
}

void SimDisk::changed() {
    if (change_hook_) change_hook_(*this);
}

// ---- The handle

SimDiskHandle::SimDiskHandle(SimDisk& disk, SimReactor& reactor, const DiskOptions& options)
    : disk_(disk),
      reactor_(reactor),
      volatile_cache_(options.cache == DiskOptions::Cache::detect
                          ? disk.model_.volatile_cache
                          : options.cache == DiskOptions::Cache::is_volatile),
      read_only_(options.read_only) {
    if (options.exclusive) disk_.holder_ = this;
}

SimDiskHandle::~SimDiskHandle() {
    if (disk_.holder_ == this) disk_.holder_ = nullptr;
}

void SimDiskHandle::submit(DiskOp& op) {
    PF_ASSERT(!read_only_ || op.kind == DiskOp::Kind::read);
    disk_.submit(reactor_, op);
}

}  // namespace pf::runtime::sim
