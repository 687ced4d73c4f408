#include "tray/root_reader.hpp"

#include <fmt/format.h>

#include <optional>

namespace pf::tray {

runtime::Task<Result<Root>> RootReader::read(std::vector<std::string>& warnings) {
    runtime::Buffer buffer = co_await runtime::Reactor::current().buffers().allocate(block_bytes);
    std::optional<Root> newest;
    std::string errors;
    for (uint32_t slot = 0; slot < root_slots; ++slot) {
        const uint64_t offset = uint64_t{first_root_address + slot} * block_bytes;
        Status done = co_await disk_.read(offset, buffer.bytes());
        // A slot that one read alone missed must not send the mount back to an older root.
        if (!done) done = co_await disk_.read(offset, buffer.bytes());
        const Result<Root> root =
            done ? decode_root(buffer.bytes(), superblock_) : std::unexpected<Error>(done.error());
        // The other slot's root would be an older one, and the mount's own would go over this.
        if (!root && root.error().code == Errc::unsupported_version) {
            co_return fail(root.error().code, fmt::format("{}: root slot {}: {}", disk_.name(),
                                                          slot, root.error().message));
        }
        if (!root || root->number % root_slots != slot) {
            const std::string why = root ? "it belongs to the other slot" : root.error().text();
            warnings.push_back(fmt::format("{}: root slot {} is damaged ({}), the other is used",
                                           disk_.name(), slot, why));
            errors += fmt::format("; slot {}: {}", slot, why);
            continue;
        }
        if (!newest || root->number > newest->number) newest = *root;
    }
    if (!newest) {
        co_return fail(Errc::corrupt,
                       fmt::format("{}: both root slots are damaged{}", disk_.name(), errors));
    }
    co_return *newest;
}

}  // namespace pf::tray
