// What a reactor's shards measure: plain numbers, written on the I/O path, copied out by who
// reports them (heartbeat, metrics).
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/metrics.hpp"
#include "wire/message.hpp"

namespace pf::pfs {

inline constexpr size_t opcode_count = static_cast<size_t>(wire::Opcode::rpc) + 1;

struct StoreStats {
    std::array<LatencyHistogram, opcode_count> latency;  // receive to reply, by opcode
    std::array<uint64_t, opcode_count> errors{};         // answered with anything but ok
    uint64_t read_bytes = 0;
    uint64_t written_bytes = 0;
    uint64_t merged_writes = 0;     // below a block: read-modify-write (T14)
    uint64_t answered_resends = 0;  // applied already: answered, not run (R8)
    uint64_t voided_requests = 0;   // R10
    uint64_t bad_payloads = 0;      // T13
    uint64_t slow_operations = 0;

    void add(const StoreStats& other) {
        for (size_t i = 0; i < opcode_count; ++i) {
            latency[i].merge(other.latency[i]);
            errors[i] += other.errors[i];
        }
        read_bytes += other.read_bytes;
        written_bytes += other.written_bytes;
        merged_writes += other.merged_writes;
        answered_resends += other.answered_resends;
        voided_requests += other.voided_requests;
        bad_payloads += other.bad_payloads;
        slow_operations += other.slow_operations;
    }
};

// Since the previous heartbeat, for `pfcli top`.
struct ShardLoad {
    uint64_t reads = 0;
    uint64_t writes = 0;
    uint64_t read_bytes = 0;
    uint64_t write_bytes = 0;
    uint64_t read_us = 0;
    uint64_t write_us = 0;

    void add(const ShardLoad& other) {
        reads += other.reads;
        writes += other.writes;
        read_bytes += other.read_bytes;
        write_bytes += other.write_bytes;
        read_us += other.read_us;
        write_us += other.write_us;
    }
};

using VolumeLoads = std::vector<std::pair<uint64_t, ShardLoad>>;  // by volume id

// At most `limit` of them, those with the most operations.
[[nodiscard]] VolumeLoads busiest(VolumeLoads loads, size_t limit);

}  // namespace pf::pfs
