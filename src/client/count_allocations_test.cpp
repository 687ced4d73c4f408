// Counts what each thread takes from the general allocator, for tests of the steady state.
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {
thread_local uint64_t allocations = 0;
}

namespace pf::client {
uint64_t allocations_of_this_thread();
uint64_t allocations_of_this_thread() {
    return allocations;
}
}  // namespace pf::client

void* operator new(size_t bytes) {
    ++allocations;
    void* memory = std::malloc(bytes);
    if (memory == nullptr) std::abort();
    return memory;
}
void operator delete(void* memory) noexcept {
    std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
    std::free(memory);
}
