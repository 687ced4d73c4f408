#include "runtime/sim/crash_enumerator.hpp"

#include <algorithm>

namespace pf::runtime::sim {

std::string CrashState::text() const {
    std::string text;
    for (const WriteFate fate : fates) text.push_back("dkt"[static_cast<size_t>(fate)]);
    return text;
}

CrashEnumerator::CrashEnumerator(CrashPoint point, CrashOptions options)
    : point_(std::move(point)), options_(options), rng_(options.seed) {
    const uint64_t writes = point_.writes.size();
    PF_ASSERT(options_.exhaustive_writes < 40);
    edges_ = std::min<uint64_t>(writes, options_.edge_limit);
    whole_states_ = exhaustive() ? uint64_t{1} << writes : 2 + 3 * edges_;
    torn_states_ = writes * options_.torn_per_write;
    if (writes == 0) options_.samples = 0;
    prefixes_.push_back(point_.durable);
}

bool CrashEnumerator::exhaustive() const {
    return point_.writes.size() <= options_.exhaustive_writes;
}

std::optional<CrashState> CrashEnumerator::next() {
    if (next_index_ == total()) return std::nullopt;
    CrashState state;
    state.fates = fates_of(next_index_++);
    // Go on from the longest prefix shared with the previous state. A torn write differs each time.
    size_t shared = 0;
    while (shared + 1 < prefixes_.size() && state.fates[shared] == previous_[shared] &&
           state.fates[shared] != WriteFate::torn) {
        ++shared;
    }
    prefixes_.resize(shared + 1);
    for (size_t i = shared; i < state.fates.size(); ++i) {
        Medium medium = prefixes_.back();
        apply(medium, i, state.fates[i]);
        prefixes_.push_back(std::move(medium));
    }
    previous_ = state.fates;
    state.medium = prefixes_.back();
    return state;
}

std::vector<WriteFate> CrashEnumerator::fates_of(uint64_t index) {
    const size_t writes = point_.writes.size();
    if (index < whole_states_) {
        if (!exhaustive()) return edge_fates(index);
        std::vector<WriteFate> fates(writes, WriteFate::dropped);
        // The last write changes fastest, so that prefixes are shared.
        for (size_t i = 0; i < writes; ++i) {
            if ((index >> (writes - 1 - i) & 1) != 0) fates[i] = WriteFate::kept;
        }
        return fates;
    }
    index -= whole_states_;
    if (index < torn_states_) {
        std::vector<WriteFate> fates = random_fates(false);
        fates[index / options_.torn_per_write] = WriteFate::torn;
        return fates;
    }
    return random_fates(true);
}

std::vector<WriteFate> CrashEnumerator::edge_fates(uint64_t index) const {
    const size_t writes = point_.writes.size();
    if (index < 2) return {writes, index == 0 ? WriteFate::dropped : WriteFate::kept};
    index -= 2;
    // Beyond edge_limit the newest writes are the interesting ones.
    const size_t position = writes - 1 - index % edges_;
    std::vector<WriteFate> fates(writes, WriteFate::dropped);
    switch (index / edges_) {
        case 0:
            std::fill(fates.begin(), fates.end(), WriteFate::kept);
            fates[position] = WriteFate::dropped;
            break;
        case 1:
            fates[position] = WriteFate::kept;
            break;
        default:
            std::fill_n(fates.begin(), position, WriteFate::kept);
            break;
    }
    return fates;
}

std::vector<WriteFate> CrashEnumerator::random_fates(bool with_torn) {
    std::vector<WriteFate> fates(point_.writes.size());
    // Few dropped, few kept and half of each are different bugs.
    const uint64_t keep_percent = 10 + 20 * rng_.below(5);
    for (WriteFate& fate : fates) {
        if (with_torn && rng_.below(8) == 0) {
            fate = WriteFate::torn;
        } else {
            fate = rng_.below(100) < keep_percent ? WriteFate::kept : WriteFate::dropped;
        }
    }
    return fates;
}

void CrashEnumerator::apply(Medium& medium, size_t position, WriteFate fate) {
    const WriteData& data = *point_.writes[position].data;
    if (fate == WriteFate::dropped) return;
    if (fate == WriteFate::kept) return medium.apply(data);
    const bool prefix = rng_.below(2) == 0;
    const uint64_t end = rng_.below(data.sectors() + 1);
    for (uint64_t sector = 0; sector < data.sectors(); ++sector) {
        if (prefix ? sector < end : rng_.below(2) == 0) medium.apply_sector(data, sector);
    }
}

}  // namespace pf::runtime::sim
