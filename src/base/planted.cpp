#include "base/planted.hpp"

#if defined(PF_PLANTED_BUGS)
#include <cstdlib>
#include <string>

namespace pf {

namespace {
std::string& chosen() {
    static std::string name = [] {
        const char* value = std::getenv("PF_PLANT");
        return std::string(value == nullptr ? "" : value);
    }();
    return name;
}
}  // namespace

bool planted(std::string_view name) noexcept {
    return chosen() == name;
}

void set_planted(std::string_view name) {
    chosen() = name;
}

}  // namespace pf
#endif
