// The conductor's RPC port: clients and stores (proto/rpc.proto). Handles end with the connection
// that opened them.
#pragma once

#include <set>

#include "conductor/core.hpp"
#include "net/channel.hpp"

namespace pf::conductor {

class RpcServer : public net::Handler {
  public:
    explicit RpcServer(Core& core) : core_(core) {}

    [[nodiscard]] Status on_hello(net::ServerChannel& channel, const wire::Hello& hello,
                                  wire::HelloReply& reply) override;
    [[nodiscard]] runtime::Task<void> on_command(net::ServerChannel& channel,
                                                 net::Incoming incoming) override;
    void on_disconnect(net::ServerChannel& channel) override;

    // One request of `connection`; apart from the network, so that it is fuzzed and tested alone.
    [[nodiscard]] runtime::Task<Result<std::string>> answer(std::string request,
                                                            uint64_t connection);

  private:
    [[nodiscard]] runtime::Task<Result<v1::RpcReply>> dispatch(v1::RpcRequest request,
                                                               uint64_t connection);
    [[nodiscard]] runtime::Task<Result<v1::RpcReply>> open(v1::OpenVolumeRequest request,
                                                           uint64_t connection);

    static constexpr uint16_t max_depth = 32;
    Core& core_;
    uint64_t next_connection_ = 1;
    std::set<uint64_t> connections_;
};

}  // namespace pf::conductor
