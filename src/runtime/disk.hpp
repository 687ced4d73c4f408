// The disk side of the runtime seam: asynchronous, aligned I/O on one device or file.
//
// Contract: offsets and lengths are multiples of block_bytes (4 KiB) and memory is 4 KiB-aligned.
// An operation transfers everything or fails; an implementation resubmits short transfers itself.
// A completed write is durable only if it was `write_through`, if `volatile_cache()` is false, or
// once a flush that was *submitted after the write completed* has completed. Operations in flight
// together have no order. After an error the state of the written range is unknown until it is
// written again.
//
// Thread rule: used only on the reactor that opened it. The op object and the memory it names stay
// valid until it completes; destroy a Disk only when nothing is in flight.
#pragma once

#include <sys/uio.h>

#include <coroutine>
#include <cstdint>
#include <string>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "base/list.hpp"

namespace pf::runtime {

// One operation, embedded in its issuer (an awaiter in a coroutine frame, or a longer-lived
// object), so that issuing allocates nothing. `complete` is called once, from the reactor loop,
// never from inside submit().
struct DiskOp : ListHook {
    enum class Kind : uint8_t { read, write, flush, discard };
    static constexpr uint32_t max_iovecs = 512;

    Kind kind = Kind::read;
    bool write_through = false;  // of a write: durable when it completes (FUA)
    uint64_t offset = 0;
    uint64_t length = 0;         // total bytes
    const iovec* iov = nullptr;  // for read and write
    uint32_t iov_count = 0;      // 1..max_iovecs
    iovec single{};              // storage for the one-buffer case: iov may point here
    int32_t result = 0;          // 0, or a negative errno
    void (*complete)(DiskOp&) = nullptr;
    // Scratch for the implementation.
    uint64_t progress = 0;
    void* backend = nullptr;
};

class DiskAwaiter;

class Disk {
  public:
    virtual ~Disk() = default;

    virtual void submit(DiskOp& op) = 0;
    [[nodiscard]] virtual uint64_t size_bytes() const = 0;
    // True when a completed write may still be lost at power failure. Files always say true (T10),
    // unless an operator overrode it.
    [[nodiscard]] virtual bool volatile_cache() const = 0;
    // With a volatile cache: a lone write through it is quicker than a write and a flush, because
    // the device has FUA or its flushes take next to nothing. May change while the disk is in use.
    [[nodiscard]] virtual bool quick_write_through() const = 0;
    // False: discards are refused with `unsupported`. A device may turn out so at the first.
    [[nodiscard]] virtual bool can_discard() const = 0;
    // What people recognise: the path, or the simulated name.
    [[nodiscard]] virtual const std::string& name() const = 0;

    // co_await these: each gives a Status.
    [[nodiscard]] DiskAwaiter read(uint64_t offset, MutableBytes to);
    [[nodiscard]] DiskAwaiter write(uint64_t offset, Bytes from);
    [[nodiscard]] DiskAwaiter readv(uint64_t offset, const iovec* iov, uint32_t count);
    [[nodiscard]] DiskAwaiter writev(uint64_t offset, const iovec* iov, uint32_t count);
    [[nodiscard]] DiskAwaiter flush();
    [[nodiscard]] DiskAwaiter discard(uint64_t offset, uint64_t length);
};

// The awaiting coroutine must not be destroyed while the operation is in flight, except by the
// simulator's kill, which forgets the operation first.
class DiskAwaiter : public DiskOp {
  public:
    DiskAwaiter(Disk& disk, Kind op_kind, uint64_t op_offset, uint64_t op_length, iovec one = {})
        : disk_(disk) {
        kind = op_kind;
        offset = op_offset;
        length = op_length;
        single = one;
    }
    DiskAwaiter(Disk& disk, Kind op_kind, uint64_t op_offset, const iovec* vectors, uint32_t count);
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter);
    [[nodiscard]] Status await_resume() const;

  private:
    Disk& disk_;
    std::coroutine_handle<> waiter_;
};

struct DiskOptions {
    enum class Cache : uint8_t { detect, is_volatile, is_stable };
    Cache cache = Cache::detect;
    bool read_only = false;
    // Create a file of this size when it is missing (0: never create).
    uint64_t create_bytes = 0;
    // Refuse with Errc::busy if a live process already holds the device or file, or it is mounted.
    bool exclusive = true;
};

}  // namespace pf::runtime
