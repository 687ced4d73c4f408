// The store's line to the conductor: registers, then sends heartbeats, and starts over with a
// growing pause whenever the line breaks. Nothing on the data path waits for it (promise 5).
//
// Thread rule: one reactor. Bounded: one call in flight, each with a timeout.
#pragma once

#include <memory>

#include "net/channel.hpp"
#include "proto/rpc.pb.h"
#include "runtime/pause.hpp"
#include "runtime/sync.hpp"

namespace pf::pfs {

// What the link reports, and whom it tells what it learned.
class LinkOwner {
  public:
    virtual ~LinkOwner() = default;
    [[nodiscard]] virtual runtime::Task<pureflash::v1::RegisterStoreRequest> registration() = 0;
    [[nodiscard]] virtual runtime::Task<pureflash::v1::HeartbeatRequest> heartbeat() = 0;
    [[nodiscard]] virtual runtime::Task<Status> registered(
        pureflash::v1::RegisterStoreReply reply) = 0;
};

class ConductorLink {
  public:
    ConductorLink(runtime::Address conductor, LinkOwner& owner)
        : conductor_(std::move(conductor)), owner_(owner) {}
    ConductorLink(const ConductorLink&) = delete;
    ConductorLink& operator=(const ConductorLink&) = delete;

    void start(runtime::Reactor& reactor);
    // Says goodbye if the line is up, and returns when the loop has ended.
    [[nodiscard]] runtime::Task<void> stop();
    // The next heartbeat goes out now: something changed that the conductor should know.
    void report_soon() { pause_.cut_short(); }
    // True once the conductor has answered a registration on the current connection.
    [[nodiscard]] bool registered() const { return registered_; }

  private:
    static constexpr runtime::Nanos call_timeout = 5 * runtime::seconds;
    static constexpr runtime::Nanos first_pause = 100 * runtime::milliseconds;
    static constexpr runtime::Nanos longest_pause = 5 * runtime::seconds;

    [[nodiscard]] runtime::Task<void> run();
    [[nodiscard]] runtime::Task<Status> serve();
    [[nodiscard]] runtime::Task<Status> converse(net::ClientChannel& channel);
    [[nodiscard]] runtime::Task<Result<pureflash::v1::RpcReply>> call(
        net::ClientChannel& channel, pureflash::v1::RpcRequest request, runtime::Nanos timeout);

    runtime::Address conductor_;
    LinkOwner& owner_;
    runtime::Pause pause_;
    bool started_ = false;
    bool registered_ = false;  // in the current connection
    runtime::Event finished_;
};

}  // namespace pf::pfs
