// Memory for coroutine frames: per-thread free lists by size class, so that starting a coroutine in
// steady state touches no general allocator. Frames are freed on the thread that made them, because
// a coroutine never leaves its reactor.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pf::runtime {

[[nodiscard]] void* allocate_frame(size_t bytes);
void free_frame(void* frame, size_t bytes) noexcept;

// Frames that had to come from the general allocator on this thread so far (the steady-state
// allocation test watches it).
[[nodiscard]] uint64_t frames_allocated() noexcept;

}  // namespace pf::runtime
