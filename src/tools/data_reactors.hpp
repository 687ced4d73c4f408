// How many reactors a store gets, and the memory of each.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/uring/uring_reactor.hpp"
#include "store/tray_set.hpp"

namespace pf::tools {

// A tray has one reactor, so more reactors than a store can have trays would never work.
inline constexpr size_t max_data_reactors = pfs::TraySet::max_trays;
inline constexpr uint64_t default_buffer_bytes = uint64_t{128} << 20;

// "auto" or "0": 0. Otherwise the number, at most max_data_reactors. The error names the setting.
[[nodiscard]] Result<size_t> parse_reactors(std::string_view setting, const std::string& text);

// One for each core that this process may run on.
[[nodiscard]] size_t reactors_for_cores();

// `buffer_bytes` is split evenly; each reactor has at least 16 MiB, so that its largest commands
// and its trays find room.
[[nodiscard]] std::vector<runtime::UringOptions> data_reactors(size_t count, uint64_t buffer_bytes);

}  // namespace pf::tools
