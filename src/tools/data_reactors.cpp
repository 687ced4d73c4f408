#include "tools/data_reactors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <thread>

#include "net/channel.hpp"
#include "tools/data_dir.hpp"

namespace pf::tools {

Result<size_t> parse_reactors(std::string_view setting, const std::string& text) {
    if (text == "auto") return 0;
    size_t count = 0;
    const char* end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, count);
    if (error != std::errc{} || stopped != end || text.empty() || count > max_data_reactors) {
        return fail(Errc::invalid_argument, fmt::format("{} is '{}'; allowed: auto, or 1 to {}",
                                                        setting, text, max_data_reactors));
    }
    return count;
}

size_t reactors_for_cores() {
    const size_t cores = std::thread::hardware_concurrency();  // heeds the affinity mask
    return std::clamp(cores, size_t{1}, max_data_reactors);
}

// All connections that one server takes may sit on one reactor, each with a receive and a send.
static_assert(runtime::UringOptions{}.ring_entries * runtime::Ring::completions_per_entry >=
              3 * net::max_connections);

std::vector<runtime::UringOptions> data_reactors(size_t count, uint64_t buffer_bytes) {
    constexpr uint64_t least = uint64_t{16} << 20;
    std::vector<runtime::UringOptions> all(count);
    for (runtime::UringOptions& each : all) {
        each.seed = random_seed();
        each.buffer_arena_bytes = std::max(buffer_bytes / count, least);
    }
    return all;
}

}  // namespace pf::tools
