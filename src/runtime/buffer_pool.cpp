#include "runtime/buffer_pool.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <new>

#include "base/assert.hpp"
#include "runtime/task.hpp"

namespace pf::runtime {

Buffer::~Buffer() {
    if (pool_ != nullptr) pool_->release(data_, order_);
}

Result<std::unique_ptr<BufferPool>> BufferPool::create(size_t arena_bytes) {
    const MutableBytes arena = map(arena_bytes);
    if (arena.empty())
        return fail(Errc::resource_exhausted, fmt::format("no room for {} MiB of buffers: {}",
                                                          arena_bytes >> 20, std::strerror(errno)));
    return std::unique_ptr<BufferPool>(new BufferPool(arena));
}

MutableBytes BufferPool::map(size_t arena_bytes) {
    arena_bytes = round_up(arena_bytes, max_buffer_bytes);
    // Over-mapped by one piece so that every 2 MiB piece is aligned to its size (buddies need it).
    auto* mapped = static_cast<std::byte*>(
        ::mmap(nullptr, arena_bytes + max_buffer_bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (mapped == MAP_FAILED) return {};
    const auto base = reinterpret_cast<uintptr_t>(mapped);
    const size_t head = round_up(base, max_buffer_bytes) - base;
    const size_t tail = max_buffer_bytes - head;
    std::byte* arena = mapped + head;
    if (head != 0) ::munmap(mapped, head);
    if (tail != 0) ::munmap(arena + arena_bytes, tail);
    return {arena, arena_bytes};
}

BufferPool::BufferPool(MutableBytes arena) : arena_(arena.data()), arena_bytes_(arena.size()) {
    PF_ASSERT(arena_ != nullptr);
    free_order_.resize(arena_bytes_ / min_buffer_bytes);
    for (size_t at = arena_bytes_; at > 0; at -= max_buffer_bytes) {
        put_free(arena_ + at - max_buffer_bytes, order_count - 1);
    }
    free_bytes_ = arena_bytes_;
}

BufferPool::~BufferPool() {
    for (auto& list : free_) {
        while (list.pop_front() != nullptr) {
        }
    }
    ::munmap(arena_, arena_bytes_);
}

uint8_t BufferPool::order_of(size_t bytes) {
    PF_ASSERT(bytes > 0 && bytes <= max_buffer_bytes);
    const size_t pieces = (bytes + min_buffer_bytes - 1) / min_buffer_bytes;
    return static_cast<uint8_t>(std::bit_width(pieces - 1));
}

size_t BufferPool::index_of(const std::byte* data) const {
    return static_cast<size_t>(data - arena_) / min_buffer_bytes;
}

void BufferPool::put_free(std::byte* data, uint8_t order) {
    free_[order].push_front(*new (data) FreePiece);
    free_order_[index_of(data)] = static_cast<uint8_t>(order + 1);
}

std::byte* BufferPool::take_free(uint8_t order) {
    FreePiece* piece = free_[order].pop_front();
    piece->~FreePiece();
    auto* data = reinterpret_cast<std::byte*>(piece);
    free_order_[index_of(data)] = 0;
    return data;
}

Buffer BufferPool::try_allocate(size_t bytes) {
    const uint8_t wanted = order_of(bytes);
    uint8_t order = wanted;
    while (order < order_count && free_[order].empty()) ++order;
    if (order == order_count) return {};
    std::byte* data = take_free(order);
    while (order > wanted) {
        --order;
        put_free(data + (min_buffer_bytes << order), order);
    }
    free_bytes_ -= min_buffer_bytes << wanted;
    return Buffer(this, data, bytes, wanted);
}

void BufferPool::release(std::byte* data, uint8_t order) {
    free_bytes_ += min_buffer_bytes << order;
    while (order + 1 < order_count) {
        const size_t offset = static_cast<size_t>(data - arena_);
        std::byte* buddy = arena_ + (offset ^ (min_buffer_bytes << order));
        if (free_order_[index_of(buddy)] != order + 1) break;
        auto* piece = std::launder(reinterpret_cast<FreePiece*>(buddy));
        piece->unlink();
        piece->~FreePiece();
        free_order_[index_of(buddy)] = 0;
        data = std::min(data, buddy);
        ++order;
    }
    put_free(data, order);
    serve_waiters();
}

void BufferPool::serve_waiters() {
    while (AllocateAwaiter* waiter = waiters_.front()) {
        waiter->buffer_ = try_allocate(waiter->bytes_);
        if (!waiter->buffer_) return;
        waiters_.pop_front();
        schedule(waiter->waiter_);
    }
}

BufferPool::AllocateAwaiter BufferPool::allocate(size_t bytes) {
    return {*this, bytes};
}

bool BufferPool::AllocateAwaiter::await_ready() {
    if (!pool_.waiters_.empty()) return false;
    buffer_ = pool_.try_allocate(bytes_);
    return static_cast<bool>(buffer_);
}

void BufferPool::AllocateAwaiter::await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    pool_.waiters_.push_back(*this);
}

}  // namespace pf::runtime
