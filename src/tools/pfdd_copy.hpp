// The copy itself: up to `depth` blocks under way. Volumes are read and written asynchronously and
// in any order; files in order.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "tools/pfdd_endpoint.hpp"
#include "tools/pfdd_holes.hpp"
#include "tools/pfdd_options.hpp"

namespace pf::tools {

struct CopyCounts {
    uint64_t full_in = 0;
    uint64_t partial_in = 0;
    uint64_t full_out = 0;
    uint64_t partial_out = 0;
    uint64_t bytes = 0;         // of the input, written
    uint64_t padded_bytes = 0;  // zeros added to fill the last sector of a volume

    // Changes whenever a read or a write of a block ends.
    [[nodiscard]] uint64_t records() const { return full_in + partial_in + full_out + partial_out; }
};

// Whether the source has what is to be skipped. For before the target is opened, which may create
// it.
[[nodiscard]] Status check_skip(const DdOptions& options, const Endpoint& input);

class Copy {
  public:
    Copy(const DdOptions& options, Cluster& cluster, Endpoint& input, Endpoint& output);

    // Refuses what cannot fit before anything is changed.
    [[nodiscard]] Status prepare();
    // Runs until the end, the first error, or until `stop()` gives true. Calls `tick` often. After
    // an error or `stop` what is under way may still end, but not longer than `stop_limit`.
    [[nodiscard]] Status run(const std::function<bool()>& stop, const std::function<void()>& tick,
                             std::chrono::milliseconds stop_limit = default_stop_limit);
    // I/O was given up that still uses the memory of this: the process has to end without
    // destroying it.
    [[nodiscard]] bool gave_up() const { return gave_up_; }
    static constexpr std::chrono::milliseconds default_stop_limit{10'000};

    [[nodiscard]] const CopyCounts& counts() const { return counts_; }
    // I/O of a volume, or a question to one, is under way.
    [[nodiscard]] bool busy() const;
    // What is to be copied, if it is known.
    [[nodiscard]] std::optional<uint64_t> expected_bytes() const { return expected_; }

  private:
    struct Block {
        enum class State : uint8_t { free, reading, read, writing };
        Copy* copy = nullptr;
        std::byte* memory = nullptr;
        State state = State::free;
        bool hole = false;     // only to be zeroed: `memory` holds nothing
        uint64_t at = 0;       // from the beginning of the copy
        uint64_t bytes = 0;    // of the input
        uint64_t written = 0;  // with padding
        int status = 0;
    };
    struct FreeMemory {
        void operator()(std::byte* memory) const;
    };

    bool advance();
    [[nodiscard]] bool overdue();
    void say_given_up();
    bool start_read(Block& block);
    [[nodiscard]] Result<bool> plan_hole(Block& block);
    bool start_write(Block& block);
    void finish_read(Block& block);
    void finish_write(Block& block);
    void count(uint64_t bytes, uint64_t& full, uint64_t& partial) const;
    [[nodiscard]] Status check_same() const;
    void fail_with(Error error);
    [[nodiscard]] Status finish_output();
    [[nodiscard]] Error volume_error(const Endpoint& endpoint, const char* what, uint64_t offset,
                                     int status) const;

    const DdOptions& options_;
    Cluster& cluster_;
    Endpoint& input_;
    Endpoint& output_;
    Holes input_holes_;
    Holes output_holes_;
    std::unique_ptr<std::byte[], FreeMemory> memory_;
    std::vector<Block> blocks_;  // used round robin: block i % size holds the i-th block
    uint64_t next_read_ = 0;     // block numbers
    uint64_t next_write_ = 0;    // in order, for files
    uint64_t oldest_ = 0;
    uint64_t planned_ = 0;  // bytes begun
    std::optional<uint64_t> expected_;
    bool input_ended_ = false;
    std::function<bool()> stop_;
    std::chrono::milliseconds stop_limit_ = default_stop_limit;
    std::optional<std::chrono::steady_clock::time_point> stopped_at_;
    bool gave_up_ = false;
    Status result_;
    CopyCounts counts_;
};

}  // namespace pf::tools
