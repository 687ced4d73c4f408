#include "tray/loss.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/planted.hpp"

namespace pf::tray {

void Loss::mark(Shard& shard) {
    if (planted("lost_log_marks_no_shard")) return;
    shard.state.damaged = true;
    marked_.insert(shard.state.shard);
}

void Loss::add(const LogReader::Lost& lost) {
    if (blocks_++ == 0) first_ = lost.sequence;
    last_ = lost.sequence;
    for (const auto& [id, shard] : map_.shards()) {
        if (lost.shards.may_hold(id)) mark(*shard);
    }
}

bool Loss::take_misfit(const Record& record, const Error& error) {
    if (!any() || error.code != Errc::corrupt) return false;
    const ShardId id = std::visit(
        [](const auto& value) {
            if constexpr (requires { value.state; }) {
                return value.state.shard;
            } else if constexpr (requires { value.id; }) {
                return value.id.shard;
            } else {
                return value.shard;
            }
        },
        record);
    ++misfits_;
    // An unknown one was made by what is lost: it is not here at all.
    if (Shard* shard = map_.find_any(id)) mark(*shard);
    return true;
}

void Loss::finish() {
    if (!any()) return;
    // An acceptance in the log was of an earlier loss.
    for (const ShardId id : marked_) map_.find_any(id)->state.damaged = true;
    // A clone reads what its parent lost.
    const auto reads_lost = [](const Shard& shard) {
        return std::ranges::any_of(shard.generations, [](const auto& entry) {
            const Generation* parent = entry.second->parent;
            return parent != nullptr && parent->shard->state.damaged;
        });
    };
    for (bool more = true; more;) {
        more = false;
        for (const auto& [id, shard] : map_.shards()) {
            if (shard->state.damaged || !reads_lost(*shard)) continue;
            mark(*shard);
            more = shard->state.damaged;
        }
    }
    // R8: what it remembers of its clients has a gap as well. Unknown sessions are refused.
    for (const ShardId id : marked_) map_.find_any(id)->sessions = {};
}

std::string Loss::message() const {
    if (!any()) return {};
    std::string text = fmt::format(
        "{} log blocks ({} to {}) were durable and cannot be read: {} shards may have lost writes "
        "and answer no I/O until that is accepted",
        blocks_, first_, last_, marked_.size());
    if (misfits_ > 0) text += fmt::format("; {} later records have nothing to go with", misfits_);
    return text;
}

}  // namespace pf::tray
