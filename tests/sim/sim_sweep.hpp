// What the two halves of sim_sweep share.
#pragma once

#include <cstdint>
#include <string_view>

namespace pf::test {

struct SweepTally {
    uint64_t runs = 0;
    uint64_t failed = 0;  // the operation ended with an error
    uint64_t failed_trays = 0;
};

void print_sweep(std::string_view operation, std::string_view failing, const SweepTally& tally);
// The operations of the conductor; `only`, unless empty, names one.
[[nodiscard]] bool sweep_admin(std::string_view only);

}  // namespace pf::test
