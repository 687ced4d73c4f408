#include "runtime/frame_pool.hpp"

#include <array>
#include <new>

namespace pf::runtime {

namespace {

constexpr size_t class_bytes = 128;
constexpr size_t class_count = 64;  // up to 8 KiB; larger frames go to the general allocator

struct FreeFrame {
    FreeFrame* next;
};

struct FramePool {
    std::array<FreeFrame*, class_count> free{};
    uint64_t allocated = 0;

    ~FramePool() {
        for (FreeFrame* head : free) {
            while (head != nullptr) {
                FreeFrame* next = head->next;
                ::operator delete(head);
                head = next;
            }
        }
    }
};

thread_local FramePool pool;

constexpr size_t class_of(size_t bytes) {
    return (bytes + class_bytes - 1) / class_bytes - 1;
}

}  // namespace

void* allocate_frame(size_t bytes) {
    const size_t index = class_of(bytes);
    if (index < class_count && pool.free[index] != nullptr) {
        FreeFrame* frame = pool.free[index];
        pool.free[index] = frame->next;
        return frame;
    }
    ++pool.allocated;
    return ::operator new(index < class_count ? (index + 1) * class_bytes : bytes);
}

void free_frame(void* frame, size_t bytes) noexcept {
    const size_t index = class_of(bytes);
    if (index >= class_count) {
        ::operator delete(frame);
        return;
    }
    auto* free = static_cast<FreeFrame*>(frame);
    free->next = pool.free[index];
    pool.free[index] = free;
}

uint64_t frames_allocated() noexcept {
    return pool.allocated;
}

}  // namespace pf::runtime
