#include "tools/pfdd_holes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/units.hpp"

namespace pf::tools {

namespace {

constexpr uint32_t extents_at_once = 1024;
// Some shards: an empty volume is looked over in few questions, and an interrupt is not kept
// waiting.
constexpr uint64_t window_bytes = uint64_t{64} << 30;
constexpr int64_t poll_us = 100'000;

}  // namespace

Result<Run> Holes::at(uint64_t offset, uint64_t limit) {
    if (!endpoint_.is_volume()) {
        PF_TRY_ASSIGN(const FileRun run, endpoint_.file_run(offset));
        return Run{std::min(run.bytes, limit), run.hole};
    }
    if (offset < known_from_ || offset >= known_to_) PF_TRY(ask_volume(offset));
    uint64_t from = known_from_;
    for (const pfbd_extent& extent : extents_) {
        const uint64_t to = from + extent.length_bytes;
        constexpr uint32_t data_state = 2;
        if (offset < to) return Run{std::min(to - offset, limit), extent.state != data_state};
        from = to;
    }
    return Run{limit, false};
}

Status Holes::ask_volume(uint64_t offset) {
    const uint64_t length = std::min(window_bytes, *endpoint_.size() - offset);
    extents_.resize(extents_at_once);
    extent_count_ = extents_at_once;
    answer_ = {0, false};
    const int accepted = pfbd_block_states(
        endpoint_.volume(), length, offset, extents_.data(), &extent_count_,
        [](void* argument, int status) { *static_cast<Answer*>(argument) = {status, true}; },
        &answer_);
    if (accepted != 0) answer_ = {accepted, true};
    while (!answer_.done) {
        if (!go_on_())
            return fail(Errc::cancelled, fmt::format("'{}' does not answer", endpoint_.name()));
        cluster_.poll(poll_us);
    }
    if (answer_.status != 0)
        return fail(from_errno(-answer_.status),
                    fmt::format("cannot ask what '{}' holds at offset {}: {}", endpoint_.name(),
                                offset, std::strerror(-answer_.status)));
    extents_.resize(extent_count_);
    known_from_ = known_to_ = offset;
    for (const pfbd_extent& extent : extents_) known_to_ += extent.length_bytes;
    return {};
}

}  // namespace pf::tools
