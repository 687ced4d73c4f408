#include "oracle.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/assert.hpp"

namespace pf::test {

namespace {

constexpr size_t max_slots = 64;
constexpr size_t max_states = 20'000;

uint64_t mix(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
}

// A sector of a tag: the tag and the place first, so that a stranger can be named.
void fill_sector(OpId tag, uint32_t volume, uint64_t sector, std::byte* to) {
    std::array<uint64_t, sector_bytes / 8> words{};
    if (tag != 0) {
        words[0] = tag | sector << 32;
        words[1] = volume;
        for (size_t i = 2; i < words.size(); ++i) words[i] = mix(words[0] * 31 + words[1] + i);
    }
    std::memcpy(to, words.data(), sector_bytes);
}

constexpr OpId no_tag = UINT32_MAX;  // bytes that no write wrote here

OpId tag_of_sector(uint32_t volume, uint64_t sector, const std::byte* from) {
    uint64_t first = 0;
    std::memcpy(&first, from, sizeof first);
    const auto tag = static_cast<OpId>(first);
    std::array<std::byte, sector_bytes> expected;
    fill_sector(tag, volume, sector, expected.data());
    return std::memcmp(from, expected.data(), sector_bytes) == 0 ? tag : no_tag;
}

uint64_t key_of(uint32_t volume, uint64_t block) {
    return uint64_t{volume} << 40 | block;
}

bool covers(uint8_t mask, uint32_t sector) {
    return (mask >> sector & 1) != 0;
}

}  // namespace

void fill_sectors(OpId tag, uint32_t volume, uint64_t offset, MutableBytes to) {
    for (size_t at = 0; at < to.size(); at += sector_bytes)
        fill_sector(tag, volume, (offset + at) / sector_bytes, to.data() + at);
}

void fill_from_tags(const BlockTags& tags, uint32_t volume, uint64_t offset, MutableBytes to) {
    for (size_t at = 0; at < to.size(); at += sector_bytes) {
        const uint64_t sector = (offset + at) / sector_bytes;
        fill_sector(tags[sector % sectors_per_block], volume, sector, to.data() + at);
    }
}

OpId Oracle::begin(Kind kind, uint32_t volume, uint64_t offset, uint64_t length, bool zero,
                   const BlockTags* expected) {
    const auto id = static_cast<OpId>(operations_.size());
    Operation& op = operations_.emplace_back();
    op.kind = kind;
    op.tag = zero ? 0 : id;
    op.volume = volume;
    op.offset = offset;
    op.length = length;
    op.begun_at = ++clock_;
    const uint64_t end = offset + length;
    for (uint64_t at = offset; at < end; at = round_down(at, block_bytes) + block_bytes) {
        BlockPart part;
        part.block = key_of(volume, at / block_bytes);
        const uint64_t stop = std::min(end, round_down(at, block_bytes) + block_bytes);
        for (uint64_t sector = at; sector < stop; sector += sector_bytes)
            part.mask |= static_cast<uint8_t>(1u << (sector % block_bytes / sector_bytes));
        if (expected != nullptr) part.tags = *expected;
        op.parts.push_back(part);
    }
    for (uint32_t i = 0; i < op.parts.size(); ++i) {
        Block& block = blocks_[op.parts[i].block];
        block.events.push_back({id, i, true});
        run_events(block, op.parts[i].block);
    }
    return id;
}

OpId Oracle::begin_write(uint32_t volume, uint64_t offset, uint64_t length, bool zero) {
    return begin(Kind::write, volume, offset, length, zero, nullptr);
}

OpId Oracle::begin_compare(uint32_t volume, uint64_t offset, uint64_t length,
                           const BlockTags& expected) {
    PF_ASSERT(offset / block_bytes == (offset + length - 1) / block_bytes);
    return begin(Kind::compare, volume, offset, length, false, &expected);
}

OpId Oracle::begin_read(uint32_t volume, uint64_t offset, uint64_t length) {
    return begin(Kind::read, volume, offset, length, false, nullptr);
}

void Oracle::end_write(OpId id, Errc result) {
    if (result == Errc::ok) return end(id, Outcome::ok);
    if (result == Errc::miscompare) return end(id, Outcome::miscompare);
    ++unknown_outcomes_;
    end(id, Outcome::failed);
}

void Oracle::end_read(OpId id, Errc result, Bytes bytes) {
    Operation& op = operations_[id];
    if (result != Errc::ok) return end(id, Outcome::failed);
    for (uint64_t at = 0; at < op.length; at += sector_bytes) {
        const uint64_t sector = (op.offset + at) / sector_bytes;
        const uint64_t index = sector / sectors_per_block - op.offset / block_bytes;
        const OpId tag = tag_of_sector(op.volume, sector, bytes.data() + at);
        op.parts[index].tags[sector % sectors_per_block] = tag;
        if (tag == no_tag && violation_.empty()) {
            violation_ = fmt::format("{}: sector {} holds bytes that nobody wrote there",
                                     describe(id), sector);
        }
    }
    end(id, Outcome::ok);
}

void Oracle::abandon(OpId id) {
    Operation& op = operations_[id];
    if (op.kind == Kind::read) return end(id, Outcome::failed);
    ++unknown_outcomes_;
    op.outcome = Outcome::abandoned;
    abandoned_.push_back(id);
    for (const BlockPart& part : op.parts) run_events(blocks_[part.block], part.block);
}

void Oracle::store_died() {
    for (const OpId id : abandoned_) {
        operations_[id].over = true;
        end(id, Outcome::abandoned);
    }
    abandoned_.clear();
}

void Oracle::end(OpId id, Outcome outcome) {
    Operation& op = operations_[id];
    op.outcome = outcome;
    op.ended_at = ++clock_;
    for (uint32_t i = 0; i < op.parts.size(); ++i) {
        Block& block = blocks_[op.parts[i].block];
        block.events.push_back({id, i, false});
        run_events(block, op.parts[i].block);
    }
    if (op.outcome != Outcome::failed && op.outcome != Outcome::abandoned) op.seen.clear();
}

// What an operation does is known at its begin only for plain writes; everything else waits for its
// end, and what came later on the block waits behind it.
void Oracle::run_events(Block& block, uint64_t key) {
    while (!block.events.empty() && violation_.empty()) {
        const Event event = block.events.front();
        const Operation& op = operations_[event.id];
        if (op.kind != Kind::write && op.outcome == Outcome::pending) return;
        block.events.pop_front();
        const bool nothing = op.kind == Kind::read && op.outcome == Outcome::failed;
        if (nothing) continue;
        if (event.begin) {
            begin_part(block, event);
        } else {
            end_part(block, key, event);
        }
    }
}

void Oracle::begin_part(Block& block, const Event& event) {
    const Operation& op = operations_[event.id];
    const BlockPart& part = op.parts[event.part];
    if (op.kind != Kind::read) {
        uint8_t others = 0;
        for (const Active& active : block.slots) {
            if (active.id == 0 || operations_[active.id].kind == Kind::read) continue;
            others |= operations_[active.id].parts[active.part].mask;
        }
        for (uint32_t i = 0; i < sectors_per_block; ++i) {
            if (covers(part.mask, i)) block.last_begun[i] = event.id;
        }
        block.alone = static_cast<uint8_t>((block.alone & ~part.mask) | (part.mask & ~others));
    }
    auto slot = std::ranges::find(block.slots, OpId{0}, &Active::id);
    if (slot == block.slots.end()) {
        PF_ASSERT(block.slots.size() < max_slots);
        slot = block.slots.insert(block.slots.end(), Active{});
    }
    *slot = {event.id, event.part};
}

void Oracle::end_part(Block& block, uint64_t key, const Event& event) {
    const Operation& op = operations_[event.id];
    const auto found = std::ranges::find(block.slots, event.id, &Active::id);
    PF_ASSERT(found != block.slots.end());
    const auto slot = static_cast<size_t>(found - block.slots.begin());
    const bool sure = op.outcome == Outcome::ok || op.outcome == Outcome::miscompare;
    std::vector<State> states = with_effect(block, slot);
    if (states.empty() && sure) return fail_block(block, key, event.id);
    if (!sure) states.insert(states.end(), block.states.begin(), block.states.end());
    for (State& state : states) state.done &= ~(uint64_t{1} << slot);
    std::ranges::sort(states);
    const auto rest = std::ranges::unique(states);
    states.erase(rest.begin(), rest.end());
    block.states = std::move(states);
    if (op.kind == Kind::read) check_atomicity(block, key, *found);
    found->id = 0;
    if (block.states.size() > max_states) fail_block(block, key, event.id);
}

// Lets the active operation take effect on the state; false if it cannot.
bool Oracle::apply(State& state, const Active& active) const {
    const Operation& op = operations_[active.id];
    const BlockPart& part = op.parts[active.part];
    if (op.kind != Kind::write) {
        bool equal = true;
        for (uint32_t i = 0; i < sectors_per_block; ++i)
            equal = equal && (!covers(part.mask, i) || state.tags[i] == part.tags[i]);
        if (op.outcome == Outcome::miscompare) return !equal;
        if (!equal) return false;
    }
    if (op.kind == Kind::read) return true;
    for (uint32_t i = 0; i < sectors_per_block; ++i) {
        if (covers(part.mask, i)) state.tags[i] = op.tag;
    }
    return true;
}

// All states in which the operation of `slot` has taken effect, with whatever others before it.
std::vector<Oracle::State> Oracle::with_effect(const Block& block, size_t slot) const {
    std::vector<State> found;
    std::vector<State> open = block.states;
    std::set<State> visited(open.begin(), open.end());
    while (!open.empty() && visited.size() <= max_states) {
        const State state = open.back();
        open.pop_back();
        if ((state.done >> slot & 1) != 0) {
            found.push_back(state);
            continue;
        }
        for (size_t i = 0; i < block.slots.size(); ++i) {
            if (block.slots[i].id == 0 || (state.done >> i & 1) != 0) continue;
            State next = state;
            if (!apply(next, block.slots[i])) continue;
            next.done |= uint64_t{1} << i;
            if (visited.insert(next).second) open.push_back(next);
        }
    }
    return found;
}

// Promise 3: of a write with an unknown outcome that nobody else touched, all blocks of a chunk
// must agree whether it is there.
void Oracle::check_atomicity(Block& block, uint64_t key, const Active& read) {
    const BlockPart part = operations_[read.id].parts[read.part];
    for (uint32_t i = 0; i < sectors_per_block; ++i) {
        const OpId id = block.last_begun[i];
        if (!covers(part.mask, i) || id == 0 || !covers(block.alone, i)) continue;
        Operation& write = operations_[id];
        const bool unknown =
            write.outcome == Outcome::failed || (write.outcome == Outcome::abandoned && write.over);
        const bool after = write.ended_at < operations_[read.id].begun_at;
        if (write.kind != Kind::write || write.tag == 0 || !unknown || !after) continue;
        ++atomicity_checks_;
        uint8_t& seen = write.seen[key / blocks_per_chunk];
        seen = static_cast<uint8_t>(seen | (part.tags[i] == id ? 1 : 2));
        if (seen == 3 && violation_.empty()) {
            violation_ = fmt::format("{} is half there, says {}", describe(id), describe(read.id));
        }
    }
}

void Oracle::fail_block(const Block& before, uint64_t key, OpId id) {
    if (!violation_.empty()) return;
    violation_ =
        fmt::format("block {} of volume {}: {} contradicts all {} possible states",
                    key & ((uint64_t{1} << 40) - 1), key >> 40, describe(id), before.states.size());
    const Operation& op = operations_[id];
    for (const BlockPart& part : op.parts) {
        if (part.block == key && op.kind != Kind::write)
            violation_ += fmt::format("\n  it saw, or expected: {}", fmt::join(part.tags, " "));
    }
    for (size_t i = 0; i < std::min<size_t>(before.states.size(), 4); ++i) {
        violation_ += fmt::format("\n  possible: {} done {:#x}",
                                  fmt::join(before.states[i].tags, " "), before.states[i].done);
    }
    for (const Active& active : before.slots) {
        if (active.id != 0) violation_ += fmt::format("\n  active: {}", describe(active.id));
    }
}

std::string Oracle::describe(OpId id) const {
    constexpr std::array kinds = {"read", "write", "compare-and-write"};
    constexpr std::array outcomes = {"pending", "ok", "miscompare", "failed", "abandoned"};
    const Operation& op = operations_[id];
    const bool zero = op.kind == Kind::write && op.tag == 0;
    return fmt::format("{} {} of volume {} at {} length {} ({})",
                       zero ? "zeroing" : kinds[static_cast<size_t>(op.kind)], id, op.volume,
                       op.offset, op.length, outcomes[static_cast<size_t>(op.outcome)]);
}

BlockTags Oracle::likely(uint32_t volume, uint64_t offset) const {
    const auto found = blocks_.find(key_of(volume, offset / block_bytes));
    if (found == blocks_.end()) return {};
    return found->second.states.back().tags;
}

}  // namespace pf::test
