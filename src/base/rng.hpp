// A small, fast, seedable random generator (xoshiro256**, seeded by splitmix64). Not for secrets.
// The only source of randomness above the runtime seam; the simulator seeds it from its one seed.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "base/assert.hpp"

namespace pf {

class Rng {
  public:
    explicit Rng(uint64_t seed) {
        for (auto& word : state_) {
            seed += 0x9e3779b97f4a7c15;
            uint64_t z = seed;
            z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
            z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
            word = z ^ (z >> 31);
        }
    }

    uint64_t next() {
        const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
        const uint64_t shifted = state_[1] << 17;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= shifted;
        state_[3] = std::rotl(state_[3], 45);
        return result;
    }

    // Uniform in [0, limit); limit > 0. The modulo bias is below 2^-32 for the limits used here.
    uint64_t below(uint64_t limit) {
        PF_ASSERT(limit > 0);
        return next() % limit;
    }
    // Uniform in [low, high].
    uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
    // True `parts` times out of a million.
    bool chance_ppm(uint64_t parts) { return below(1'000'000) < parts; }

  private:
    std::array<uint64_t, 4> state_{};
};

}  // namespace pf
