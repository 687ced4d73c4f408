// From threads outside the seam into a reactor: runs a coroutine there and waits for its answer.
// Bounded: so many calls at a time, each with a time limit.
#pragma once

#include <functional>
#include <memory>

#include "net/http/http_server.hpp"
#include "runtime/reactor.hpp"
#include "runtime/sync.hpp"

namespace pf::net {

class ReactorGate {
  public:
    using Work = std::function<runtime::Task<HttpResponse>()>;

    ReactorGate(runtime::Reactor& reactor, size_t max_calls, unsigned timeout_s);
    ~ReactorGate();

    // From any thread but the reactor's. Beyond the time limit the work goes on, its answer is lost.
    [[nodiscard]] HttpResponse call(Work work);

    // On the reactor: later calls are refused.
    void close();
    // On the reactor: returns when no call is under way.
    [[nodiscard]] runtime::Task<void> idle();

  private:
    struct State;
    struct Call;
    static runtime::Task<void> serve(std::shared_ptr<Call> call);

    std::shared_ptr<State> state_;
    unsigned timeout_s_;
};

}  // namespace pf::net
