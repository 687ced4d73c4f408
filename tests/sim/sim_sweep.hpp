// What the two halves of sim_sweep share.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>

#include "sim_cluster.hpp"

namespace pf::test {

// Whose n-th operation fails: of disk or network, or the n-th commit of the metadata.
enum class Failing : uint8_t { store, client, conductor, metadata };
inline constexpr std::array all_failing = {Failing::store, Failing::client, Failing::conductor,
                                           Failing::metadata};
[[nodiscard]] constexpr std::string_view name_of(Failing failing) {
    constexpr std::array<std::string_view, 4> names = {"store", "client", "conductor", "metadata"};
    return names[static_cast<size_t>(failing)];
}
// Says afterwards whether the failure was met.
[[nodiscard]] std::function<bool()> arm(SimCluster& cluster, runtime::sim::SimNode& client,
                                        Failing failing, uint64_t n);

// What a failed disk, connection or commit may be told as.
[[nodiscard]] constexpr bool says_what_failed(Errc code) {
    return code == Errc::io_error || code == Errc::disconnected || code == Errc::timed_out ||
           code == Errc::corrupt || code == Errc::unavailable;
}

inline constexpr runtime::Nanos sweep_bound = 120 * runtime::seconds;

struct SweepTally {
    uint64_t runs = 0;
    uint64_t failed = 0;  // the operation ended with an error
    uint64_t failed_trays = 0;
};

void print_sweep(std::string_view operation, std::string_view failing, const SweepTally& tally);
// The operations of the conductor; `only`, unless empty, names one.
[[nodiscard]] bool sweep_admin(std::string_view only);

}  // namespace pf::test
