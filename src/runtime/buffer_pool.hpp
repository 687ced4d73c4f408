// Memory for I/O: one aligned arena per reactor, cut by a buddy allocator into buffers of 4 KiB to
// 2 MiB. Its size is fixed when the reactor is made, so the memory that I/O can take is bounded;
// who finds it empty waits. The uring reactor registers the arena with the kernel.
//
// Thread rule: one reactor. A Buffer goes back where it came from when it is destroyed.
#pragma once

#include <array>
#include <coroutine>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "base/list.hpp"

namespace pf::runtime {

class BufferPool;

// Owns a piece of the arena. `size()` is what was asked for; the piece is the next power of two.
class Buffer {
  public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)),
          data_(other.data_),
          size_(std::exchange(other.size_, 0)),
          order_(other.order_) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(pool_, other.pool_);
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(order_, other.order_);
        return *this;
    }
    ~Buffer();

    [[nodiscard]] std::byte* data() const { return data_; }
    [[nodiscard]] size_t size() const { return size_; }
    [[nodiscard]] MutableBytes bytes() const { return {data_, size_}; }
    explicit operator bool() const { return pool_ != nullptr; }

  private:
    friend class BufferPool;
    Buffer(BufferPool* pool, std::byte* data, size_t size, uint8_t order)
        : pool_(pool), data_(data), size_(size), order_(order) {}
    BufferPool* pool_ = nullptr;
    std::byte* data_ = nullptr;
    size_t size_ = 0;
    uint8_t order_ = 0;
};

class BufferPool {
  public:
    static constexpr size_t min_buffer_bytes = 4096;
    static constexpr size_t max_buffer_bytes = 2u << 20;

    // Rounds up to a multiple of max_buffer_bytes. Memory is taken from the system lazily (mmap).
    // resource_exhausted: the system has no room for it.
    [[nodiscard]] static Result<std::unique_ptr<BufferPool>> create(size_t arena_bytes);
    // For tests: there has to be room.
    explicit BufferPool(size_t arena_bytes) : BufferPool(map(arena_bytes)) {}
    BufferPool(const BufferPool&) = delete;
    BufferPool& operator=(const BufferPool&) = delete;
    ~BufferPool();

    // 1..max_buffer_bytes; an empty Buffer when nothing that large is free.
    [[nodiscard]] Buffer try_allocate(size_t bytes);

    class AllocateAwaiter;
    // co_await allocate(n): waits, first come first served, until a piece is free.
    [[nodiscard]] AllocateAwaiter allocate(size_t bytes);

    [[nodiscard]] MutableBytes arena() const { return {arena_, arena_bytes_}; }
    [[nodiscard]] size_t free_bytes() const { return free_bytes_; }
    // Of the arena, what users keep count of as theirs for a purpose that must leave room for
    // others, taken yet or not (net::TcpSession: answers of reads). The pool only adds it up.
    [[nodiscard]] size_t promised_bytes() const { return promised_bytes_; }
    void promise(size_t bytes) { promised_bytes_ += bytes; }
    void take_back(size_t bytes) {
        PF_ASSERT(bytes <= promised_bytes_);
        promised_bytes_ -= bytes;
    }
    // Whether someone waits in line: who then takes with try_allocate goes before them.
    [[nodiscard]] bool has_waiters() const { return !waiters_.empty(); }

    class AllocateAwaiter : public ListHook {
      public:
        AllocateAwaiter(BufferPool& pool, size_t bytes) : pool_(pool), bytes_(bytes) {}
        bool await_ready();
        void await_suspend(std::coroutine_handle<> waiter);
        Buffer await_resume() { return std::move(buffer_); }

      private:
        friend class BufferPool;
        BufferPool& pool_;
        size_t bytes_;
        Buffer buffer_;
        std::coroutine_handle<> waiter_;
    };

  private:
    friend class Buffer;
    // Nothing where there is no room.
    static MutableBytes map(size_t arena_bytes);
    explicit BufferPool(MutableBytes arena);
    static constexpr uint8_t order_count = 10;  // 4 KiB << 9 == 2 MiB
    struct FreePiece : ListHook {};

    static uint8_t order_of(size_t bytes);
    void release(std::byte* data, uint8_t order);
    void serve_waiters();
    [[nodiscard]] size_t index_of(const std::byte* data) const;
    // A free piece holds its own list hook in its first bytes; the state table says order and
    // freedom.
    void put_free(std::byte* data, uint8_t order);
    std::byte* take_free(uint8_t order);

    std::byte* arena_ = nullptr;
    size_t arena_bytes_ = 0;
    size_t free_bytes_ = 0;
    size_t promised_bytes_ = 0;
    std::array<List<FreePiece>, order_count> free_;
    std::vector<uint8_t> free_order_;  // per 4 KiB: order + 1 if a free piece starts there, else 0
    List<AllocateAwaiter> waiters_;
};

}  // namespace pf::runtime
