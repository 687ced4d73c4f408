#include "net/two_buffers.hpp"

namespace pf::net {

using runtime::Buffer;

runtime::Task<void> allocate_two(runtime::BufferPool& pool, size_t first_bytes, size_t second_bytes,
                                 Buffer& first, Buffer& second) {
    while (true) {
        first = co_await pool.allocate(first_bytes);
        if (second_bytes == 0) co_return;
        second = pool.try_allocate(second_bytes);
        if (second) co_return;
        {
            const Buffer released = std::move(first);
        }
        second = co_await pool.allocate(second_bytes);
        first = pool.try_allocate(first_bytes);
        if (first) co_return;
        {
            const Buffer released = std::move(second);
        }
    }
}

}  // namespace pf::net
