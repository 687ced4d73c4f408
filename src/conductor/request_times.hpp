// How long the requests of a port took, by what they asked for. From any thread: REST is served by
// threads of its own. Who records takes ops from a list that is fixed, never from a stranger.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "base/metrics.hpp"

namespace pf::conductor {

class RequestTimes {
  public:
    void record(std::string_view op, uint64_t nanos) {
        const std::lock_guard lock(mutex_);
        auto found = by_op_.find(op);
        if (found == by_op_.end()) found = by_op_.try_emplace(std::string(op)).first;
        found->second.record(nanos);
    }
    void add_to(MetricsPage& page, std::string_view name, std::string_view help) const {
        const std::lock_guard lock(mutex_);
        for (const auto& [op, times] : by_op_) page.histogram(name, help, {{"op", op}}, times);
    }

  private:
    mutable std::mutex mutex_;
    std::map<std::string, LatencyHistogram, std::less<>> by_op_;
};

}  // namespace pf::conductor
