// What a simulated disk holds after its process or its power is gone.
#include "runtime/sim/sim_disk.hpp"

#include <algorithm>

#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {

std::vector<const SimDisk::InFlight*> SimDisk::writes_in_flight() const {
    std::vector<const InFlight*> writes;
    for (const InFlight& slot : slots_) {
        if (slot.used && slot.data) writes.push_back(&slot);
    }
    std::sort(writes.begin(), writes.end(),
              [](const InFlight* a, const InFlight* b) { return a->sequence < b->sequence; });
    return writes;
}

CrashPoint SimDisk::capture() const {
    CrashPoint point{durable_, {unflushed_.begin(), unflushed_.end()}};
    for (const InFlight* slot : writes_in_flight()) {
        if (slot->faulty && slot->fault == FaultKind::lost_write) continue;
        point.writes.push_back({slot->data, false, slot->sequence, false});
    }
    return point;
}

void SimDisk::forget(const SimReactor& reactor) {
    Rng& rng = simulation_.rng();
    std::vector<std::shared_ptr<const WriteData>> reached;
    for (const InFlight* slot : writes_in_flight()) {
        if (slot->reactor == &reactor && slot->error == 0 && !slot->faulty && rng.below(2) == 0) {
            reached.push_back(slot->data);
        }
    }
    for (InFlight& slot : slots_) {
        if (slot.used && slot.reactor == &reactor) free_slot(slot);
    }
    for (auto& data : reached) cache_write(std::move(data));
    holder_ = nullptr;  // the kernel drops a dead process's lock
}

void SimDisk::persist_by_chance(const UnflushedWrite& write) {
    Rng& rng = simulation_.rng();
    const WriteData& data = *write.data;
    const uint64_t choice = rng.below(4);
    if (choice == 0) {
        report(FaultKind::dropped, DiskOp::Kind::write, data.offset, data.length);
    } else if (choice < 3) {
        durable_.apply(data);
    } else {
        // Half of the torn writes end somewhere, the others have holes.
        const uint64_t end = rng.below(data.sectors() + 1);
        const bool holes = rng.below(2) == 0;
        for (uint64_t sector = 0; sector < data.sectors(); ++sector) {
            if (holes ? rng.below(2) == 0 : sector < end) durable_.apply_sector(data, sector);
        }
        report(FaultKind::torn, DiskOp::Kind::write, data.offset, data.length);
    }
}

void SimDisk::lose_power() {
    CrashPoint point = capture();
    // Writes in flight have no order among themselves.
    const auto completed = static_cast<size_t>(
        std::count_if(point.writes.begin(), point.writes.end(),
                      [](const UnflushedWrite& write) { return write.completed; }));
    for (size_t i = point.writes.size(); i > completed + 1; --i) {
        const size_t j = completed + simulation_.rng().below(i - completed);
        std::swap(point.writes[i - 1], point.writes[j]);
    }
    for (const UnflushedWrite& write : point.writes) persist_by_chance(write);
    for (InFlight& slot : slots_) {
        if (slot.used) free_slot(slot);
    }
    unflushed_.clear();
    unflushed_bytes_ = 0;
    current_ = durable_;
}

void SimDisk::replace(Medium medium) {
    PF_ASSERT(holder_ == nullptr && in_flight_count_ == 0);
    current_ = medium;
    durable_ = std::move(medium);
    unflushed_.clear();
    unflushed_bytes_ = 0;
}

}  // namespace pf::runtime::sim
