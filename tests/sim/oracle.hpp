// What volumes may answer: the oracle of the whole-cluster simulation.
//
// Every 4 KiB block is one atomic register of 8 sectors. The oracle keeps, for each block, all
// states that some order of the operations so far allows, and narrows them as operations end; a
// block without a state left is a broken promise. Operations end in one of these ways:
//   ok         it took effect once, between its begin and its end;
//   miscompare (compare-and-write) it found other data at some moment between;
//   failed     it took effect before its end, or never will (R10);
//   abandoned  its client died: it may take effect until the store process has died too.
// Each write has a tag of its own in every sector, so a read says which writes it saw. Writes whose
// outcome is unknown must also be whole or absent within each chunk (docs/guarantees.md, 3).
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/error.hpp"
#include "base/units.hpp"

namespace pf::test {

inline constexpr uint32_t sectors_per_block = block_bytes / sector_bytes;
using OpId = uint32_t;  // also the tag of what the operation writes; 0: zeros
using BlockTags = std::array<OpId, sectors_per_block>;

// The bytes of sectors that `tag` wrote at `offset` of a volume.
void fill_sectors(OpId tag, uint32_t volume, uint64_t offset, MutableBytes to);
void fill_from_tags(const BlockTags& tags, uint32_t volume, uint64_t offset, MutableBytes to);

class Oracle {
  public:
    // Offsets are of 512-byte sectors; `zero` writes are discards and write-zeroes.
    OpId begin_write(uint32_t volume, uint64_t offset, uint64_t length, bool zero);
    // Inside one block. `expected` is compared with what `mask` of the block covers.
    OpId begin_compare(uint32_t volume, uint64_t offset, uint64_t length,
                       const BlockTags& expected);
    OpId begin_read(uint32_t volume, uint64_t offset, uint64_t length);

    void end_write(OpId id, Errc result);  // compare-and-write too
    void end_read(OpId id, Errc result, Bytes bytes);
    void abandon(OpId id);
    // Nothing of a client that is dead can take effect from now on.
    void store_died();

    // A state that the block may be in now, for a compare that is likely to succeed.
    [[nodiscard]] BlockTags likely(uint32_t volume, uint64_t offset) const;
    [[nodiscard]] std::string describe(OpId id) const;
    // Empty as long as every promise was kept.
    [[nodiscard]] const std::string& violation() const { return violation_; }
    [[nodiscard]] uint64_t unknown_outcomes() const { return unknown_outcomes_; }
    [[nodiscard]] uint64_t atomicity_checks() const { return atomicity_checks_; }

  private:
    enum class Kind : uint8_t { read, write, compare };
    enum class Outcome : uint8_t { pending, ok, miscompare, failed, abandoned };
    struct BlockPart {
        uint64_t block = 0;  // key: volume and block
        uint8_t mask = 0;
        BlockTags tags{};  // a read's result, a compare's expectation
    };
    struct Operation {
        Kind kind = Kind::read;
        Outcome outcome = Outcome::pending;
        OpId tag = 0;
        bool over = false;  // abandoned, and its store process is gone
        uint32_t volume = 0;
        uint64_t offset = 0;
        uint64_t length = 0;
        uint64_t begun_at = 0;  // in the order of calls
        uint64_t ended_at = 0;
        std::vector<BlockPart> parts;
        std::map<uint64_t, uint8_t> seen;  // chunk: 1 present, 2 absent
    };
    struct Event {
        OpId id;
        uint32_t part;
        bool begin;
    };
    struct Active {
        OpId id = 0;
        uint32_t part = 0;
    };
    struct State {
        BlockTags tags{};
        uint64_t done = 0;  // slots of active operations that took effect
        auto operator<=>(const State&) const = default;
    };
    struct Block {
        std::vector<State> states{State{}};
        std::vector<Active> slots;  // id 0: free
        std::deque<Event> events;   // behind a read or compare whose result is not known
        std::array<OpId, sectors_per_block> last_begun{};
        uint8_t alone = 0;  // sectors whose last begun write overlapped no other
    };

    OpId begin(Kind kind, uint32_t volume, uint64_t offset, uint64_t length, bool zero,
               const BlockTags* expected);
    void end(OpId id, Outcome outcome);
    void run_events(Block& block, uint64_t key);
    void begin_part(Block& block, const Event& event);
    void end_part(Block& block, uint64_t key, const Event& event);
    [[nodiscard]] bool apply(State& state, const Active& active) const;
    [[nodiscard]] std::vector<State> with_effect(const Block& block, size_t slot) const;
    void check_atomicity(Block& block, uint64_t key, const Active& read);
    void fail_block(const Block& before, uint64_t key, OpId id);

    std::deque<Operation> operations_{1};  // by id
    std::map<uint64_t, Block> blocks_;
    std::vector<OpId> abandoned_;
    uint64_t clock_ = 0;
    std::string violation_;
    uint64_t unknown_outcomes_ = 0;
    uint64_t atomicity_checks_ = 0;
};

}  // namespace pf::test
