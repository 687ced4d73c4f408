// The RPC connection to the conductor. It may come and go: open volumes do not need it. While there
// are open handles it is made again in the background, and they are announced again.
//
// Thread rule: one reactor. Bounded: each call by its timeout, or an attempt to connect if that
// takes longer; one attempt at a time, whose failure is that of all who waited for it, paced from
// 100 ms to 5 s. A connection on which a call timed out and nothing was answered meanwhile is
// ended.
#pragma once

#include <memory>
#include <string>

#include "net/channel.hpp"
#include "proto/rpc.pb.h"
#include "runtime/pause.hpp"
#include "runtime/sync.hpp"

namespace pf::client {

class ConductorLink {
  public:
    static constexpr runtime::Nanos default_timeout = 15 * runtime::seconds;

    // Whoever holds an open handle; told after each reconnect.
    class Handle : public ListHook {
      public:
        virtual ~Handle() = default;
        [[nodiscard]] virtual runtime::Task<void> announce() = 0;

      private:
        friend class ConductorLink;
        uint64_t generation_ = 0;  // the connection it belongs to
    };

    explicit ConductorLink(runtime::Address address) : address_(std::move(address)) {}

    // Once, if need be.
    [[nodiscard]] runtime::Task<Status> connect();
    // Connects if need be. A refusal of the conductor comes back as its error.
    [[nodiscard]] runtime::Task<Result<pureflash::v1::RpcReply>> call(
        pureflash::v1::RpcRequest request, runtime::Nanos timeout = default_timeout);

    void add(Handle& handle);
    [[nodiscard]] runtime::Task<void> close();

  private:
    using ChannelPtr = std::shared_ptr<net::ClientChannel>;
    [[nodiscard]] runtime::Task<Result<ChannelPtr>> connected();
    [[nodiscard]] Error unreachable(const Error& why) const;
    [[nodiscard]] runtime::Task<Result<ChannelPtr>> connect_again();
    [[nodiscard]] runtime::Task<void> keep_connected();
    [[nodiscard]] runtime::Task<void> announce_all();

    runtime::Address address_;
    ChannelPtr channel_;
    runtime::Mutex connecting_;
    uint64_t generation_ = 0;  // counts connections
    uint64_t failures_ = 0;    // attempts to connect
    Error last_failure_{};
    uint64_t answers_ = 0;  // to calls
    List<Handle> handles_;
    bool keeping_ = false;
    bool closing_ = false;
    runtime::WaitQueue wake_;
    runtime::Pause pause_;
    runtime::Event kept_;
};

}  // namespace pf::client
