// A file or block device behind the Disk seam: direct I/O through the reactor's ring.
//
// Durability: as disk.hpp says. A flush is fdatasync; files always count as having a volatile cache
// (T10), because a direct write into unwritten extents is not durable when it completes.
// Reads and writes beyond the end fail with invalid_argument and touch nothing.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/disk.hpp"
#include "runtime/uring/ring.hpp"

namespace pf::runtime {

struct OpenedFile {
    int fd = -1;
    uint64_t size_bytes = 0;
    bool volatile_cache = true;
    bool fua = false;
    // Of devices only: a hole in a file gives up the room that was reserved for it.
    bool can_discard = false;
    bool read_only = false;
};

// The loop device that shows the file as a disk, or an empty string; what is written to the file
// under it is lost on, or destroys, the filesystem there. `blocks` is where the kernel lists them.
[[nodiscard]] std::string loop_device_of(const std::string& path,
                                         const std::string& blocks = "/sys/block");
// Opens and, if asked to, creates and locks a file or block device. Blocks for a moment: it is
// called when a tray is opened, not on the I/O path.
[[nodiscard]] Result<OpenedFile> open_file(const std::string& path, const DiskOptions& options);

class UringDisk final : public Disk {
  public:
    UringDisk(Ring& ring, std::string path, const OpenedFile& opened);
    ~UringDisk() override;

    void submit(DiskOp& op) override;
    [[nodiscard]] uint64_t size_bytes() const override { return opened_.size_bytes; }
    [[nodiscard]] bool volatile_cache() const override { return opened_.volatile_cache; }
    [[nodiscard]] bool quick_write_through() const override {
        return opened_.volatile_cache && (opened_.fua || flush_time_ < quick_flush);
    }
    [[nodiscard]] bool can_discard() const override { return opened_.can_discard; }
    [[nodiscard]] const std::string& name() const override { return path_; }

  private:
    // What the ring needs for one DiskOp. Slots are reused, and grow to the depth that was used.
    struct Slot : RingOp {
        Slot() : RingOp(&UringDisk::prepare, &UringDisk::done) {}
        UringDisk* disk = nullptr;
        DiskOp* op = nullptr;
        Nanos started_at = 0;  // of a flush
        Slot* next_free = nullptr;
    };

    // Without FUA the kernel flushes after each write through the cache. Two flushes for one cost
    // less than another trip through this loop only where a flush is quick.
    static constexpr Nanos quick_flush = 100 * microseconds;

    static void prepare(RingOp& base, io_uring_sqe& sqe);
    static void done(RingOp& base, int32_t result, uint32_t cqe_flags);
    void prepare_transfer(const DiskOp& op, io_uring_sqe& sqe) const;
    [[nodiscard]] bool allowed(const DiskOp& op) const;
    // Whether the operation is over; sets its result then.
    bool advance(DiskOp& op, int32_t result);
    void measure_flush(Nanos took);
    Slot& take_slot();

    Ring& ring_;
    std::string path_;
    OpenedFile opened_;
    RingFile file_;
    Nanos flush_time_ = never;  // of late; never: not known yet
    uint64_t in_flight_ = 0;
    Slot* free_slots_ = nullptr;
    std::vector<std::unique_ptr<Slot[]>> slots_;
};

}  // namespace pf::runtime
