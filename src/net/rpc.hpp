// Internal RPC: serialized protobuf envelopes (proto/rpc.proto) as rpc commands on the data
// transport. This layer moves bytes; callers serialize and parse.
#pragma once

#include <string>

#include "net/channel.hpp"

namespace pf::net {

// Calls and gives the reply's bytes. The peer's refusal comes back as its Errc and message.
// Errors: disconnected or timed_out (outcome unknown), resource_exhausted (over max_rpc_bytes).
[[nodiscard]] runtime::Task<Result<std::string>> rpc_call(ClientChannel& channel,
                                                          std::string request,
                                                          runtime::Nanos timeout);

// Answers an rpc command with bytes, or with an error whose message travels as data.
void rpc_reply(ServerChannel& channel, const wire::Command& command, Result<std::string> result);

// The request bytes of an rpc command.
[[nodiscard]] std::string_view rpc_request(const Incoming& incoming);

}  // namespace pf::net
