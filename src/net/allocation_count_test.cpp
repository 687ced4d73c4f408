// Counts the allocations of the program. A file of its own: inlined into callers, gcc takes the
// pair for a mismatch.
#include <cstdint>
#include <cstdlib>
#include <new>

extern uint64_t allocations;
uint64_t allocations = 0;

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
