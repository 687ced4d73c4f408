// The StoreLink over the data transport: one connection to each store address, made when it is
// needed and made again after it broke.
#pragma once

#include <map>

#include "conductor/store_link.hpp"
#include "net/channel.hpp"
#include "runtime/sync.hpp"

namespace pf::conductor {

class NetStoreLink : public StoreLink {
  public:
    [[nodiscard]] runtime::Task<Result<v1::RpcReply>> call(std::string address,
                                                           v1::RpcRequest request,
                                                           runtime::Nanos timeout) override;
    [[nodiscard]] runtime::Task<void> close() override;

  private:
    using Channel = std::shared_ptr<net::ClientChannel>;
    struct Peer {
        Channel channel;
        runtime::Mutex connecting;
        uint64_t failures = 0;  // attempts to connect that failed
        Error last_failure;
    };
    [[nodiscard]] runtime::Task<Result<Channel>> connect(std::string address);
    [[nodiscard]] runtime::Task<Result<v1::RpcReply>> exchange(std::string address,
                                                               v1::RpcRequest request,
                                                               runtime::Nanos timeout);

    std::map<std::string, Peer> peers_;
    bool closing_ = false;
    runtime::WaitGroup calls_;
};

}  // namespace pf::conductor
