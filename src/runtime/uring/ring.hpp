// One io_uring: queues operations, enters the kernel once per loop turn, hands out completions.
//
// Bounds: operations inside the kernel never exceed the completion queue, so no completion can be
// lost; what does not fit waits here in order and is never failed for lack of entries.
//
// Thread rule: single issuer. The ring starts disabled, so that operations can be queued on the
// thread that builds the reactor; `enable` binds it to the thread that runs it.
#pragma once

#include <liburing.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "base/list.hpp"
#include "runtime/timer.hpp"

namespace pf::runtime {

[[nodiscard]] Nanos monotonic_now();

// One operation, embedded in its issuer. From start() until `done` is called the kernel may hold
// this object and the memory it names.
struct RingOp : ListHook {
    using Prepare = void (*)(RingOp&, io_uring_sqe&);
    using Done = void (*)(RingOp&, int32_t result, uint32_t cqe_flags);
    RingOp(Prepare prepare_function, Done done_function)
        : prepare(prepare_function), done(done_function) {}

    Prepare prepare;
    Done done;
    bool in_flight = false;  // queued here or inside the kernel
};

// A file as the ring names it: a slot of the registered table, or the descriptor itself when the
// table is full.
struct RingFile {
    int fd = -1;
    int slot = -1;
    void apply(io_uring_sqe& sqe) const {
        sqe.fd = slot >= 0 ? slot : fd;
        if (slot >= 0) sqe.flags |= IOSQE_FIXED_FILE;
    }
};

class Ring {
  public:
    static constexpr uint32_t max_entries = 4096;
    // Silent connections keep a receive each inside the kernel, and disks and sends need room, too.
    static constexpr uint32_t completions_per_entry = 16;

    // Fails with a message for people when io_uring is missing, forbidden, or older than Linux 6.1.
    [[nodiscard]] static Result<std::unique_ptr<Ring>> create(uint32_t entries);
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;
    ~Ring();

    // Binds the ring to the calling thread; later calls only check that it is the same one.
    void enable();
    [[nodiscard]] bool enabled() const { return owner_thread_ != 0; }
    // 0 or a negative errno; the kernel signals the eventfd for every completion.
    int register_event_fd(int event_fd) { return io_uring_register_eventfd(&ring_, event_fd); }

    void start(RingOp& op);
    // Asks the kernel to end `op` early; it still completes once. False when there was no room to
    // ask: try again later.
    bool cancel(RingOp& op);

    // Submits everything queued and, if `wait` is not 0, sleeps until a completion or for `wait`.
    void enter(Nanos wait);
    // Counts operations that a fast device may end sooner than a sleep and a wake take: while there
    // are any, enter() watches for a completion for a moment before it sleeps.
    void quick_started() { ++quick_; }
    void quick_ended() { --quick_; }
    // Submits without looking for completions.
    void submit();
    // Calls `done` for every completion at hand. Returns how many.
    size_t reap();
    // Ends everything in flight and waits for the kernel to let go of the memory.
    void drain();

    [[nodiscard]] bool has_unsubmitted() const { return io_uring_sq_ready(&ring_) > 0; }
    [[nodiscard]] uint64_t in_flight() const { return in_kernel_; }
    [[nodiscard]] bool draining() const { return draining_; }

    // Registered memory. Without the privilege to pin it, plain reads and writes are used.
    bool register_arena(MutableBytes arena);
    // The registered buffer that holds the memory whole, or -1.
    [[nodiscard]] int buffer_index(const void* data, size_t bytes) const {
        const auto offset =
            reinterpret_cast<uintptr_t>(data) - reinterpret_cast<uintptr_t>(arena_.data());
        if (offset >= arena_.size() || bytes > arena_.size() - offset) return -1;
        const uint64_t first = offset / max_registered_bytes;
        return (offset + bytes - 1) / max_registered_bytes == first ? static_cast<int>(first) : -1;
    }
    [[nodiscard]] RingFile register_file(int fd);
    void unregister_file(const RingFile& file);

  private:
    static constexpr uint64_t max_registered_bytes = uint64_t{1} << 30;
    static constexpr uint32_t file_slots = 4096;

    Ring() = default;
    io_uring_sqe* take_sqe();
    void fill(RingOp& op, io_uring_sqe& sqe);
    void start_waiting();
    void publish();
    // Whether a completion came soon. Devices that keep being slower are watched ever less often.
    bool watch(Nanos wait);
    int enter_kernel(uint32_t wait_for, uint32_t flags, const void* arg, size_t arg_bytes);
    void create_file_table();

    io_uring ring_{};
    bool ring_made_ = false;
    bool draining_ = false;
    int owner_thread_ = 0;
    uint32_t enter_flags_ = 0;
    uint64_t in_kernel_ = 0;
    uint64_t completion_entries_ = 0;
    uint64_t quick_ = 0;
    uint32_t watches_to_skip_ = 0;
    uint32_t skip_after_failure_ = 0;
    List<RingOp> waiting_;
    MutableBytes arena_;
    std::vector<int> free_slots_;
};

}  // namespace pf::runtime
