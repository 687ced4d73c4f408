#include "runtime/uring/uring_disk.hpp"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <cerrno>

#include "base/assert.hpp"
#include "base/units.hpp"

namespace pf::runtime {

UringDisk::UringDisk(Ring& ring, std::string path, const OpenedFile& opened)
    : ring_(ring), path_(std::move(path)), opened_(opened), file_(ring.register_file(opened.fd)) {}

UringDisk::~UringDisk() {
    PF_ASSERT(in_flight_ == 0 || ring_.draining());
    ring_.unregister_file(file_);
    ::close(file_.fd);
}

UringDisk::Slot& UringDisk::take_slot() {
    constexpr size_t slots_per_step = 64;
    if (free_slots_ == nullptr) {
        slots_.push_back(std::make_unique<Slot[]>(slots_per_step));
        for (size_t i = 0; i < slots_per_step; ++i) {
            Slot& slot = slots_.back()[i];
            slot.disk = this;
            slot.next_free = free_slots_;
            free_slots_ = &slot;
        }
    }
    Slot& slot = *free_slots_;
    free_slots_ = slot.next_free;
    return slot;
}

bool UringDisk::allowed(const DiskOp& op) const {
    if (op.kind == DiskOp::Kind::flush) return true;
    if (op.kind != DiskOp::Kind::read && opened_.read_only) return false;
    return op.length > 0 && op.offset <= opened_.size_bytes &&
           op.length <= opened_.size_bytes - op.offset;
}

void UringDisk::submit(DiskOp& op) {
    PF_ASSERT(op.offset % block_bytes == 0 && op.length % block_bytes == 0);
    PF_ASSERT(op.iov_count <= DiskOp::max_iovecs);
    Slot& slot = take_slot();
    slot.op = &op;
    op.backend = &slot;
    op.progress = 0;
    ++in_flight_;
    if (op.kind == DiskOp::Kind::flush) slot.started_at = monotonic_now();
    ring_.quick_started();
    ring_.start(slot);
}

void UringDisk::prepare_transfer(const DiskOp& op, io_uring_sqe& sqe) const {
    const bool reading = op.kind == DiskOp::Kind::read;
    const iovec* iov = op.iov;
    uint64_t skip = op.progress;
    while (skip >= iov->iov_len) skip -= (iov++)->iov_len;
    const auto left = static_cast<uint32_t>(op.iov_count - (iov - op.iov));
    const uint64_t at = op.offset + op.progress;
    // After a short transfer the rest of the broken vector goes alone; the others follow it.
    if (left == 1 || skip > 0) {
        std::byte* memory = static_cast<std::byte*>(iov->iov_base) + skip;
        const auto bytes = static_cast<uint32_t>(iov->iov_len - skip);
        const int buffer = ring_.buffer_index(memory, bytes);
        if (buffer >= 0) {
            if (reading) io_uring_prep_read_fixed(&sqe, file_.fd, memory, bytes, at, buffer);
            if (!reading) io_uring_prep_write_fixed(&sqe, file_.fd, memory, bytes, at, buffer);
        } else {
            if (reading) io_uring_prep_read(&sqe, file_.fd, memory, bytes, at);
            if (!reading) io_uring_prep_write(&sqe, file_.fd, memory, bytes, at);
        }
        return;
    }
    if (reading) io_uring_prep_readv(&sqe, file_.fd, iov, left, at);
    if (!reading) io_uring_prep_writev(&sqe, file_.fd, iov, left, at);
}

void UringDisk::prepare(RingOp& base, io_uring_sqe& sqe) {
    auto& slot = static_cast<Slot&>(base);
    const UringDisk& disk = *slot.disk;
    const DiskOp& op = *slot.op;
    if (!disk.allowed(op)) {
        io_uring_prep_nop(&sqe);
        return;
    }
    switch (op.kind) {
        case DiskOp::Kind::read:
        case DiskOp::Kind::write:
            disk.prepare_transfer(op, sqe);
            if (op.write_through) sqe.rw_flags |= RWF_DSYNC;
            break;
        case DiskOp::Kind::flush:
            io_uring_prep_fsync(&sqe, disk.file_.fd, IORING_FSYNC_DATASYNC);
            break;
        case DiskOp::Kind::discard:
            if (!disk.can_discard()) {
                io_uring_prep_nop(&sqe);
                return;
            }
            io_uring_prep_fallocate(&sqe, disk.file_.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                    static_cast<off_t>(op.offset), static_cast<off_t>(op.length));
            break;
    }
    disk.file_.apply(sqe);
}

bool UringDisk::advance(DiskOp& op, int32_t result) {
    if (!allowed(op)) {
        op.result = op.kind != DiskOp::Kind::read && opened_.read_only ? -EROFS : -EINVAL;
        return true;
    }
    const bool transfer = op.kind == DiskOp::Kind::read || op.kind == DiskOp::Kind::write;
    if (op.kind == DiskOp::Kind::discard) {
        op.result = can_discard() ? result : -EOPNOTSUPP;
        if (op.result == -EOPNOTSUPP) opened_.can_discard = false;  // not asked again
        return true;
    }
    if (result < 0) {
        op.result = result;
        return true;
    }
    op.result = 0;
    if (!transfer) return true;
    // Nothing moved although the range is inside: the file shrank under us.
    if (result == 0) {
        op.result = -EIO;
        return true;
    }
    op.progress += static_cast<uint64_t>(result);
    return op.progress >= op.length;
}

void UringDisk::measure_flush(Nanos took) {
    constexpr Nanos memory = 8;  // the weight of what was measured before
    flush_time_ = flush_time_ == never ? took : (flush_time_ * (memory - 1) + took) / memory;
}

void UringDisk::done(RingOp& base, int32_t result, uint32_t /*cqe_flags*/) {
    auto& slot = static_cast<Slot&>(base);
    UringDisk& disk = *slot.disk;
    DiskOp& op = *slot.op;
    if (!disk.advance(op, result)) {
        disk.ring_.start(slot);
        return;
    }
    if (op.kind == DiskOp::Kind::flush) disk.measure_flush(monotonic_now() - slot.started_at);
    slot.op = nullptr;
    slot.next_free = disk.free_slots_;
    disk.free_slots_ = &slot;
    --disk.in_flight_;
    disk.ring_.quick_ended();
    op.complete(op);
}

}  // namespace pf::runtime
