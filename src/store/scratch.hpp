// Memory that an operation needs besides its own payload: old blocks for read-modify-write and for
// compare-and-write. Taken from the buffer pool once, at start, because an operation that holds its
// payload must never wait for the pool that other payloads have emptied.
//
// Thread rule: one reactor. Bounded: who finds it empty waits in line.
#pragma once

#include <vector>

#include "runtime/buffer_pool.hpp"
#include "runtime/sync.hpp"
#include "tray/types.hpp"
#include "wire/message.hpp"

namespace pf::pfs {

class ScratchPool {
  public:
    ScratchPool(runtime::BufferPool& buffers, size_t bytes, size_t count) {
        free_.reserve(count);
        for (size_t i = 0; i < count; ++i) {
            runtime::Buffer buffer = buffers.try_allocate(bytes);
            PF_ASSERT(buffer);  // the pool is sized for it
            free_.push_back(std::move(buffer));
        }
    }

    // while (!pool.available()) co_await pool.wait();
    [[nodiscard]] bool available() const { return !free_.empty(); }
    [[nodiscard]] runtime::WaitQueue::Awaiter wait() { return waiters_.wait(); }
    [[nodiscard]] runtime::Buffer take() {
        PF_ASSERT(!free_.empty());
        runtime::Buffer buffer = std::move(free_.back());
        free_.pop_back();
        return buffer;
    }
    void give_back(runtime::Buffer buffer) {
        free_.push_back(std::move(buffer));
        waiters_.wake_one();
    }

  private:
    std::vector<runtime::Buffer> free_;
    runtime::WaitQueue waiters_;
};

// What all shards of one reactor share.
struct Scratch {
    static constexpr size_t zeros_bytes = 64u << 10;
    // The first and the last block of an unaligned range, then CRCs and an I/O vector.
    static constexpr size_t edge_bytes = 16u << 10;
    static constexpr size_t edge_count = 64;
    // The old blocks of a compare-and-write, then the merged new ones.
    static constexpr size_t compare_blocks = wire::max_compare_bytes / block_bytes + 1;
    static constexpr size_t compare_bytes = 2 * compare_blocks * block_bytes;
    static constexpr size_t compare_count = 4;

    explicit Scratch(runtime::BufferPool& buffers)
        : zeros(buffers.try_allocate(zeros_bytes)),
          edges(buffers, edge_bytes, edge_count),
          compares(buffers, compare_bytes, compare_count) {
        PF_ASSERT(zeros);
        std::memset(zeros.data(), 0, zeros_bytes);
    }

    runtime::Buffer zeros;
    ScratchPool edges;
    ScratchPool compares;
};

}  // namespace pf::pfs
