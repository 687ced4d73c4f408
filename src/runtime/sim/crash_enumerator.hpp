// Every medium that a power loss can leave behind at one point of a run.
//
//     CrashPoint point = disk.capture();            // at any moment; or from disk.on_change()
//     CrashEnumerator states(point, {.seed = 7});
//     while (std::optional<CrashState> state = states.next()) {
//         if (!seen.insert(state->medium.hash()).second) continue;   // equal bytes: seen already
//         disk.replace(state->medium);              // O(1), pages are shared
//         ... start a process, let it replay, check ...
//     }
//
// Take note of what was acked when the point is captured, not later: a state is legal only against
// what was promised at that moment.
//
// Order of the states. First the subsets of whole writes: all 2^n of them while n, the number of
// unflushed writes, is at most `exhaustive_writes`; else none, all, each one alone missing, each
// one alone present, and each prefix, at most `edge_limit` of each. Then, for each write,
// `torn_per_write` states in which it is torn at 512 bytes (a prefix or a set of sectors) and the
// others are a random subset. Then `samples` states where every write is kept, dropped or torn at
// random. The same point and options give the same states.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/rng.hpp"
#include "runtime/sim/sim_disk.hpp"

namespace pf::runtime::sim {

struct CrashOptions {
    uint64_t seed = 1;
    uint32_t exhaustive_writes = 10;
    uint32_t edge_limit = 64;
    uint32_t torn_per_write = 2;
    uint32_t samples = 64;
};

// What became of one unflushed write.
enum class WriteFate : uint8_t { dropped, kept, torn };

struct CrashState {
    Medium medium;
    std::vector<WriteFate> fates;  // by position in CrashPoint::writes

    // "kdt": one letter per write, for messages.
    [[nodiscard]] std::string text() const;
};

class CrashEnumerator {
  public:
    explicit CrashEnumerator(CrashPoint point, CrashOptions options = {});

    // The next state, or nothing when all were given.
    [[nodiscard]] std::optional<CrashState> next();
    // How many states next() gives in all (some may be equal in bytes).
    [[nodiscard]] uint64_t total() const { return whole_states_ + torn_states_ + options_.samples; }
    [[nodiscard]] const CrashPoint& point() const { return point_; }

  private:
    [[nodiscard]] std::vector<WriteFate> fates_of(uint64_t index);
    [[nodiscard]] std::vector<WriteFate> edge_fates(uint64_t index) const;
    [[nodiscard]] std::vector<WriteFate> random_fates(bool with_torn);
    void apply(Medium& medium, size_t position, WriteFate fate);
    [[nodiscard]] bool exhaustive() const;

    CrashPoint point_;
    CrashOptions options_;
    Rng rng_;
    uint64_t whole_states_ = 0;
    uint64_t torn_states_ = 0;
    uint64_t edges_ = 0;
    uint64_t next_index_ = 0;
    // The media after the first i writes of the previous state: neighbours share long prefixes.
    std::vector<Medium> prefixes_;
    std::vector<WriteFate> previous_;
};

}  // namespace pf::runtime::sim
