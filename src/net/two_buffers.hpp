// Two buffers at once, for data and its CRC table.
#pragma once

#include "runtime/buffer_pool.hpp"
#include "runtime/task.hpp"

namespace pf::net {

// Waits until the pool gives both; `second_bytes` may be 0. Never holds one while it waits for the
// other: waiters that did could wait for each other for ever.
[[nodiscard]] runtime::Task<void> allocate_two(runtime::BufferPool& pool, size_t first_bytes,
                                               size_t second_bytes, runtime::Buffer& first,
                                               runtime::Buffer& second);

}  // namespace pf::net
