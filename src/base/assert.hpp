// PF_ASSERT states an invariant. It stays on in production: a store that has lost an invariant must
// stop before it writes, because a crash is recoverable and a wrong byte is not.
#pragma once

namespace pf {

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line) noexcept;

}  // namespace pf

#define PF_ASSERT(expression)            \
    (__builtin_expect(!!(expression), 1) \
         ? void(0)                       \
         : ::pf::assertion_failed(#expression, __FILE__, __LINE__))
