// The ports of one node, as offsets from its base port, so that several nodes share a host by
// choosing different bases.
#pragma once

#include <cstdint>

namespace pf {

inline constexpr uint16_t default_port_base = 49160;

inline constexpr uint16_t store_rdma_port_offset = 0;
inline constexpr uint16_t store_tcp_port_offset = 2;
inline constexpr uint16_t conductor_http_port_offset = 20;
inline constexpr uint16_t store_http_port_offset = 21;
inline constexpr uint16_t conductor_rpc_port_offset = 22;

inline constexpr uint16_t default_conductor_http_port =
    default_port_base + conductor_http_port_offset;

// Clients are told the conductor's HTTP address only; its RPC port follows from it.
inline constexpr uint16_t conductor_rpc_from_http =
    conductor_rpc_port_offset - conductor_http_port_offset;

}  // namespace pf
