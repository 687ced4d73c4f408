// Planted bugs: known faults that the general test suites must catch, one at a time. Only a build
// with PF_PLANTED_BUGS contains them; the fault is chosen at run time by the environment variable
// PF_PLANT or by set_planted(). Elsewhere planted() is false at compile time.
#pragma once

#include <string_view>

namespace pf {

#if defined(PF_PLANTED_BUGS)
[[nodiscard]] bool planted(std::string_view name) noexcept;
// Overrides PF_PLANT for this process; an empty name plants nothing.
void set_planted(std::string_view name);
#else
[[nodiscard]] constexpr bool planted(std::string_view) noexcept {
    return false;
}
inline void set_planted(std::string_view) {}
#endif

}  // namespace pf
