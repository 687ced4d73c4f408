// What pfdd tells its user: a bar or lines while it runs, dd's summary at the end.
#pragma once

#include <chrono>

#include "tools/pfdd_copy.hpp"

namespace pf::tools {

class Report {
  public:
    explicit Report(DdOptions::Status status);

    // Prints now and then; cheap otherwise.
    void tick(const Copy& copy);
    void summary(const Copy& copy);

  private:
    void progress(const Copy& copy, double seconds);
    [[nodiscard]] double seconds_so_far() const;

    DdOptions::Status status_;
    bool terminal_;
    size_t line_length_ = 0;
    std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
    std::chrono::steady_clock::time_point printed_ = began_;
};

}  // namespace pf::tools
