// Shuts a connection down when it takes too long. Whoever waits on the connection then sees its
// operation end, and asks `expired` why.
#pragma once

#include "runtime/network.hpp"
#include "runtime/timer.hpp"

namespace pf::net {

class Deadline : public runtime::Timer {
  public:
    explicit Deadline(runtime::Connection& connection)
        : Timer(&Deadline::on_fire), connection_(connection) {}
    [[nodiscard]] bool expired() const { return expired_; }

  private:
    static void on_fire(Timer& timer) {
        auto& self = static_cast<Deadline&>(timer);
        self.expired_ = true;
        self.connection_.shut_down();
    }

    runtime::Connection& connection_;
    bool expired_ = false;
};

}  // namespace pf::net
