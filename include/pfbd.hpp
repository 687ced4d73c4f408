// pfbd for C++: contexts and volumes that close themselves, and I/O that coroutines await. Header
// only, C++20, on top of pfbd.h (which says what durability, atomicity and deadlines mean).
//
//     pfbd::Context context({.conductor = "127.0.0.1:49180"});
//     pfbd::Volume volume(context, "data");
//     int status = co_await volume.write(buffer, length, offset);   // in any coroutine of yours
//
// An awaiting coroutine is resumed from the callback: on the context's own thread, or inside
// poll() and the functions that wait of a caller-thread context. Memory stays valid until then.
// Each await gives 0 or a negative errno; -EAGAIN when `depth` I/Os are in flight already.
//
// Constructors and the functions that wait (open, administration) throw pfbd::Error; everything
// awaited gives a status instead.
#pragma once

#include <coroutine>
#include <cstdint>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "pfbd.h"

namespace pfbd {

// code() is the errno, what() begins with the library's explanation.
class Error : public std::system_error {
  public:
    explicit Error(int negative_errno)
        : std::system_error(-negative_errno, std::generic_category(), pfbd_error_text()) {}
};

inline void check(int status) {
    if (status < 0) throw Error(status);
}

struct Options {
    std::string conductor{};  // HOST:PORT; empty: PF_CONDUCTOR, then 127.0.0.1:49180
    bool caller_thread = false;
    uint32_t depth = 0;
    uint32_t io_timeout_ms = 0;
    uint64_t buffer_bytes = 0;
};

// One of list_volumes().
struct ListedVolume {
    std::string name{};
    uint64_t size_bytes = 0;
};

class Context {
  public:
    explicit Context(const Options& options = {}) {
        pfbd_options raw{};
        raw.struct_bytes = sizeof(raw);
        raw.conductor = options.conductor.empty() ? nullptr : options.conductor.c_str();
        raw.flags = options.caller_thread ? uint32_t{PFBD_CALLER_THREAD} : 0u;
        raw.depth = options.depth;
        raw.io_timeout_ms = options.io_timeout_ms;
        raw.buffer_bytes = options.buffer_bytes;
        check(pfbd_context_create(&raw, &context_));
    }
    Context(Context&& other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
    Context& operator=(Context&& other) noexcept {
        std::swap(context_, other.context_);
        return *this;
    }
    // Closes the volumes that are still open; not from inside a callback or a resumed coroutine.
    ~Context() {
        if (context_ != nullptr) pfbd_context_destroy(context_);
    }

    // Caller-thread contexts: see pfbd_poll and pfbd_poll_fd.
    int poll(int64_t timeout_us) { return pfbd_poll(context_, timeout_us); }
    [[nodiscard]] int poll_fd() { return pfbd_poll_fd(context_); }

    void create_volume(const std::string& name, uint64_t size_bytes, uint32_t replicas = 1) {
        check(pfbd_volume_create(context_, name.c_str(), size_bytes, replicas));
    }
    void delete_volume(const std::string& name, bool force = false) {
        check(pfbd_volume_delete(context_, name.c_str(), force ? 1 : 0));
    }
    void rename_volume(const std::string& name, const std::string& new_name) {
        check(pfbd_volume_rename(context_, name.c_str(), new_name.c_str()));
    }
    void resize_volume(const std::string& name, uint64_t size_bytes) {
        check(pfbd_volume_resize(context_, name.c_str(), size_bytes));
    }
    [[nodiscard]] bool volume_exists(const std::string& name) {
        const int found = pfbd_volume_exists(context_, name.c_str());
        check(found);
        return found == 1;
    }
    // All of them, in order of their names.
    [[nodiscard]] std::vector<ListedVolume> list_volumes() {
        std::vector<ListedVolume> volumes;
        const auto add = [](void* to, const char* name, uint64_t size_bytes) {
            static_cast<std::vector<ListedVolume>*>(to)->push_back({name, size_bytes});
        };
        check(pfbd_volume_list(context_, add, &volumes));
        return volumes;
    }

    [[nodiscard]] pfbd_context* get() const { return context_; }

  private:
    pfbd_context* context_ = nullptr;
};

// What the I/O functions of Volume give: co_await it once. Nothing is started before.
//
template <class Start>
class Operation {
  public:
    explicit Operation(Start start) : start_(std::move(start)) {}
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> waiter) {
        waiter_ = waiter;
        const int accepted = start_(&Operation::complete, static_cast<void*>(this));
        // Once accepted it may be over already, on another thread, and this object gone.
        if (accepted == 0) return true;
        status_ = accepted;
        return false;
    }
    [[nodiscard]] int await_resume() const noexcept { return status_; }

  private:
    static void complete(void* argument, int status) {
        auto* self = static_cast<Operation*>(argument);
        self->status_ = status;
        self->waiter_.resume();
    }
    Start start_;
    std::coroutine_handle<> waiter_;
    int status_ = 0;
};

class Volume {
  public:
    // Waits for the cluster. `flags`: PFBD_READ_ONLY, PFBD_EXCLUSIVE. The context outlives it.
    Volume(Context& context, const std::string& name, uint32_t flags = 0) {
        check(pfbd_open(context.get(), name.c_str(), flags, &volume_));
    }
    Volume(Volume&& other) noexcept : volume_(std::exchange(other.volume_, nullptr)) {}
    Volume& operator=(Volume&& other) noexcept {
        std::swap(volume_, other.volume_);
        return *this;
    }
    // Waits for I/O in flight; not from inside a callback or a resumed coroutine.
    ~Volume() {
        if (volume_ != nullptr) pfbd_close(volume_);
    }

    [[nodiscard]] pfbd_info info() const {
        pfbd_info info{};
        check(pfbd_get_info(volume_, &info));
        return info;
    }
    void refresh() { check(pfbd_refresh(volume_)); }

    [[nodiscard]] auto read(void* to, uint64_t length, uint64_t offset) {
        return Operation([=, volume = volume_](pfbd_callback done, void* argument) {
            return pfbd_read(volume, to, length, offset, done, argument);
        });
    }
    [[nodiscard]] auto write(const void* from, uint64_t length, uint64_t offset) {
        return Operation([=, volume = volume_](pfbd_callback done, void* argument) {
            return pfbd_write(volume, from, length, offset, done, argument);
        });
    }
    [[nodiscard]] auto readv(const iovec* to, int count, uint64_t offset) {
        return Operation([=, volume = volume_](pfbd_callback done, void* argument) {
            return pfbd_readv(volume, to, count, offset, done, argument);
        });
    }
    [[nodiscard]] auto writev(const iovec* from, int count, uint64_t offset) {
        return Operation([=, volume = volume_](pfbd_callback done, void* argument) {
            return pfbd_writev(volume, from, count, offset, done, argument);
        });
    }
    [[nodiscard]] auto flush() {
        return Operation([volume = volume_](pfbd_callback done, void* argument) {
            return pfbd_flush(volume, done, argument);
        });
    }
    [[nodiscard]] auto discard(uint64_t length, uint64_t offset) {
        return Operation([=, volume = volume_](pfbd_callback done, void* argument) {
            return pfbd_discard(volume, length, offset, done, argument);
        });
    }
    [[nodiscard]] auto write_zeroes(uint64_t length, uint64_t offset, uint32_t flags = 0) {
        return Operation([=, volume = volume_](pfbd_callback done, void* argument) {
            return pfbd_write_zeroes(volume, length, offset, flags, done, argument);
        });
    }
    [[nodiscard]] auto compare_and_write(const void* expected, const void* from, uint64_t length,
                                         uint64_t offset) {
        return Operation([=, volume = volume_](pfbd_callback done, void* argument) {
            return pfbd_compare_and_write(volume, expected, from, length, offset, done, argument);
        });
    }
    // Fills up to `count` extents and sets it.
    [[nodiscard]] auto block_states(uint64_t length, uint64_t offset, pfbd_extent* extents,
                                    uint32_t& count) {
        return Operation([=, &count, volume = volume_](pfbd_callback done, void* argument) {
            return pfbd_block_states(volume, length, offset, extents, &count, done, argument);
        });
    }

    [[nodiscard]] pfbd_volume* get() const { return volume_; }

  private:
    pfbd_volume* volume_ = nullptr;
};

}  // namespace pfbd
