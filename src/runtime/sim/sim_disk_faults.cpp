// Which fault strikes which operation of a simulated disk.
#include "runtime/sim/sim_disk.hpp"
#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {

namespace {

unsigned mask_of(DiskOp::Kind kind) {
    return 1u << static_cast<unsigned>(kind);
}

bool applies_to(FaultKind fault, DiskOp::Kind kind) {
    switch (fault) {
        case FaultKind::lost_write:
        case FaultKind::misdirected_write:
            return kind == DiskOp::Kind::write;
        case FaultKind::misdirected_read:
        case FaultKind::bit_rot:
            return kind == DiskOp::Kind::read;
        default:
            return true;
    }
}

bool touches(const DiskFault& fault, const DiskOp& op) {
    if ((fault.operations & mask_of(op.kind)) == 0 || !applies_to(fault.kind, op.kind)) {
        return false;
    }
    if (op.kind == DiskOp::Kind::flush) return true;
    return op.offset + op.length > fault.offset &&
           (op.offset < fault.offset || op.offset - fault.offset < fault.length);
}

}  // namespace

void SimDisk::choose_fault(const DiskOp& op, InFlight& slot, Nanos& latency) {
    for (DiskFault& fault : scripted_) {
        if (fault.count == 0 || !touches(fault, op)) continue;
        if (fault.skip > 0) {
            --fault.skip;
            continue;
        }
        if (fault.count != DiskFault::forever) --fault.count;
        if (fault.kind == FaultKind::slow) {
            latency += fault.slow_extra;
        } else if (fault.kind == FaultKind::error) {
            slot.error = fault.error;
        } else {
            slot.faulty = true;
            slot.fault = fault.kind;
            slot.other_offset = fault.other_offset;
        }
        report(fault.kind, op.kind, op.offset, op.length, fault.other_offset);
        return;
    }
    choose_random_fault(op, slot, latency);
}

void SimDisk::choose_random_fault(const DiskOp& op, InFlight& slot, Nanos& latency) {
    Rng& rng = simulation_.rng();
    const DiskFaultRates& rates = model_.faults;
    const auto hit = [&](uint32_t ppm) { return ppm != 0 && rng.chance_ppm(ppm); };
    const auto elsewhere = [&] {
        const uint64_t places = (current_.size_bytes() - op.length) / block_bytes + 1;
        return rng.below(places) * block_bytes;
    };
    const auto use = [&](FaultKind kind, uint64_t other) {
        slot.faulty = true;
        slot.fault = kind;
        slot.other_offset = other;
        report(kind, op.kind, op.offset, op.length, other);
    };
    const uint32_t error_ppm[] = {rates.read_error_ppm, rates.write_error_ppm,
                                  rates.flush_error_ppm, rates.discard_error_ppm};
    if (hit(rates.slow_ppm) || (op.kind == DiskOp::Kind::read && hit(rates.slow_read_ppm))) {
        latency += rates.slow_extra;
        report(FaultKind::slow, op.kind, op.offset, op.length);
    }
    if (hit(error_ppm[static_cast<size_t>(op.kind)])) {
        slot.error = EIO;
        report(FaultKind::error, op.kind, op.offset, op.length);
    } else if (op.kind == DiskOp::Kind::write) {
        if (hit(rates.lost_write_ppm)) {
            use(FaultKind::lost_write, 0);
        } else if (hit(rates.misdirected_write_ppm)) {
            use(FaultKind::misdirected_write, elsewhere());
        }
    } else if (op.kind == DiskOp::Kind::read) {
        if (hit(rates.bit_rot_ppm)) {
            use(FaultKind::bit_rot, 0);
        } else if (hit(rates.misdirected_read_ppm)) {
            use(FaultKind::misdirected_read, elsewhere());
        }
    }
}

void SimDisk::report(FaultKind kind, DiskOp::Kind operation, uint64_t offset, uint64_t length,
                     uint64_t other_offset) {
    ++injected_[static_cast<size_t>(kind)];
    if (fault_hook_) fault_hook_({kind, operation, offset, length, other_offset});
}

void SimDisk::clear_faults() {
    scripted_.clear();
    model_.faults = {};
}

void SimDisk::flip_bit(uint64_t offset, unsigned bit) {
    current_.flip_bit(offset, bit);
    durable_.flip_bit(offset, bit);
    // A cached copy of the page rots too, else the next flush would heal it.
    for (UnflushedWrite& write : unflushed_) {
        const WriteData& data = *write.data;
        if (data.pages.empty() || offset < data.offset || offset - data.offset >= data.length) {
            continue;
        }
        auto rotten = std::make_shared<WriteData>(data);
        Page& page = rotten->pages[(offset - data.offset) / block_bytes].own();
        page.hashed = false;
        page.bytes[offset % block_bytes] ^= std::byte{1} << bit;
        write.data = std::move(rotten);
    }
}

}  // namespace pf::runtime::sim
