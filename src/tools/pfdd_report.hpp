// What pfdd tells its user: a bar or lines while it runs, dd's summary at the end.
#pragma once

#include <chrono>

#include "tools/pfdd_copy.hpp"

namespace pf::tools {

// Finds that a copy waits for a volume that does not answer, and says so once each time. What came
// of a block that is under way cannot be seen: a large one may look like a stall on a slow path.
class StallWatch {
  public:
    using Time = std::chrono::steady_clock::time_point;
    // Long enough for a store that restarts.
    static constexpr std::chrono::seconds limit{10};

    explicit StallWatch(Time now) : moved_(now), looked_(now) {}

    // True once when no block was finished for `limit`. To be asked often: who did not look for a
    // second was waiting for something else, as for a pipe.
    bool notice(const CopyCounts& counts, bool busy, Time now);

  private:
    uint64_t records_ = 0;
    Time moved_;
    Time looked_;
    bool said_ = false;
};

class Report {
  public:
    explicit Report(DdOptions::Status status);

    // Prints now and then; cheap otherwise.
    void tick(const Copy& copy);
    void summary(const Copy& copy);

  private:
    void progress(const Copy& copy, double seconds);
    void say_stalled();
    [[nodiscard]] double seconds_so_far() const;

    DdOptions::Status status_;
    bool terminal_;
    size_t line_length_ = 0;
    std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
    std::chrono::steady_clock::time_point printed_ = began_;
    StallWatch stall_{began_};
};

}  // namespace pf::tools
