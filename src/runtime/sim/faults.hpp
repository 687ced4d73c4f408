// The dials of the simulator: how slow and how faulty its disks, network and nodes are.
//
// Rates are in parts per million of operations, drawn from the simulation's seed. Everything here
// can also be scripted exactly: SimDisk::inject, SimNetwork's calls, SimNode::fail_operation.
#pragma once

#include <cerrno>
#include <cstdint>
#include <functional>

#include "base/rng.hpp"
#include "runtime/disk.hpp"
#include "runtime/timer.hpp"

namespace pf::runtime::sim {

// Uniform in [min, 2 * mean - min]; integers only, so that every build draws the same.
struct Latency {
    Nanos min = 0;
    Nanos mean = 0;

    [[nodiscard]] Nanos draw(Rng& rng) const {
        return mean <= min ? min : min + rng.below(2 * (mean - min) + 1);
    }
};

enum class FaultKind : uint8_t {
    error,              // the operation fails; a failed write may have written any of its sectors
    lost_write,         // acked, never reaches the medium
    misdirected_write,  // acked, lands at another place
    misdirected_read,   // returns the bytes of another place
    bit_rot,            // one bit of the medium flips before the read
    slow,               // takes `slow_extra` longer
    torn,               // a power loss persisted only some sectors (reported, not injected)
    dropped,            // a power loss dropped an unflushed write (reported, not injected)
};
inline constexpr size_t fault_kind_count = 8;

// Told to the fault hook, so that an oracle knows which bytes may be wrong.
struct FaultReport {
    FaultKind kind;
    DiskOp::Kind operation;
    uint64_t offset;
    uint64_t length;
    uint64_t other_offset;  // where a misdirected operation went
};
using FaultHook = std::function<void(const FaultReport&)>;

struct DiskFaultRates {
    uint32_t read_error_ppm = 0;
    uint32_t write_error_ppm = 0;
    uint32_t flush_error_ppm = 0;
    uint32_t discard_error_ppm = 0;
    uint32_t lost_write_ppm = 0;
    uint32_t misdirected_write_ppm = 0;
    uint32_t misdirected_read_ppm = 0;
    uint32_t bit_rot_ppm = 0;
    uint32_t slow_ppm = 0;
    uint32_t slow_read_ppm = 0;  // besides: reads that starve behind writes
    Nanos slow_extra = 100 * milliseconds;

    bool operator==(const DiskFaultRates&) const = default;
};

struct DiskModel {
    uint64_t size_bytes = uint64_t{64} << 20;
    bool volatile_cache = true;
    bool fua = true;
    Latency read{60 * microseconds, 80 * microseconds};
    Latency write{10 * microseconds, 20 * microseconds};
    Latency flush{100 * microseconds, 300 * microseconds};
    Latency discard{20 * microseconds, 50 * microseconds};
    // The device writes the oldest cached writes back by itself beyond this.
    uint64_t cache_bytes = uint64_t{64} << 20;
    DiskFaultRates faults{};  // all zero: those of the simulation's FaultProfile
};

// One scripted fault: the `count` matching operations after the first `skip` matching ones.
struct DiskFault {
    static constexpr unsigned on_read = 1;
    static constexpr unsigned on_write = 2;
    static constexpr unsigned on_flush = 4;
    static constexpr unsigned on_discard = 8;
    static constexpr unsigned on_any = 15;
    static constexpr uint64_t forever = UINT64_MAX;

    FaultKind kind = FaultKind::error;
    unsigned operations = on_any;
    uint64_t offset = 0;  // only operations that touch [offset, offset + length); flushes always do
    uint64_t length = UINT64_MAX;
    uint64_t skip = 0;
    uint64_t count = 1;
    int error = EIO;
    uint64_t other_offset = 0;  // where a misdirected operation goes
    Nanos slow_extra = 100 * milliseconds;
};

struct NetworkModel {
    Latency delay{20 * microseconds, 50 * microseconds};
    uint64_t bytes_per_second = 0;              // of one direction of a connection; 0: no limit
    uint64_t window_bytes = uint64_t{1} << 20;  // sent but not yet received by the peer's reader
    Nanos stall_reset = 20 * seconds;           // a stalled connection is reset after this long
    Nanos keepalive = 10 * seconds;  // how a peer learns of a power loss if it has nothing to send
    // Rates, per send or receive or connect.
    uint32_t fragment_ppm = 100'000;  // bytes arrive in two pieces, or are received in part
    uint32_t late_ppm = 0;            // a segment is delayed by `late_extra`
    Nanos late_extra = 50 * milliseconds;
    uint32_t reset_ppm = 0;
    uint32_t corrupt_ppm = 0;  // one bit flips
    uint32_t refuse_ppm = 0;
};

struct FaultProfile {
    DiskFaultRates disk{};
    NetworkModel network{};
    uint32_t stall_ppm = 0;  // per turn of a node's loop: it stops as if by SIGSTOP
    Nanos stall_max = 2 * seconds;
};

}  // namespace pf::runtime::sim
