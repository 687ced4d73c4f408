// How the conductor reaches stores: one call, one answer. The real one keeps a connection to each
// store; tests and the simulator put their own behind the same call.
#pragma once

#include <memory>
#include <string>

#include "base/error.hpp"
#include "proto/rpc.pb.h"
#include "runtime/task.hpp"
#include "runtime/timer.hpp"

namespace pf::conductor {

namespace v1 = ::pureflash::v1;

// No answer came: asked again in the same breath, it would only be waited for again. (A store that
// answers `unavailable` is there, with a tray that is not mounted.)
[[nodiscard]] inline bool is_away(Errc error) {
    return error == Errc::disconnected || error == Errc::timed_out;
}

class StoreLink {
  public:
    virtual ~StoreLink() = default;
    // The store's refusal comes back as its Errc. Errors besides: disconnected and timed_out
    // (outcome unknown; every request to a store is idempotent, so it is sent again).
    [[nodiscard]] virtual runtime::Task<Result<v1::RpcReply>> call(std::string address,
                                                                   v1::RpcRequest request,
                                                                   runtime::Nanos timeout) = 0;
    // Ends calls under way with `cancelled` and waits for them.
    [[nodiscard]] virtual runtime::Task<void> close() = 0;
};

}  // namespace pf::conductor
