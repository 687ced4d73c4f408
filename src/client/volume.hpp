// An open volume: the core of the client library, on one reactor. Front ends inside this project
// (NBD, the C API) use it directly; everything else uses include/pfbd.h.
//
// It splits I/O at shard and chunk borders, makes the CRCs, keeps I/O in flight across reconnects
// and store restarts, and resends under the same request name, so that nothing is lost or applied
// twice (R8, R10). Writes that were fenced or hit their deadline complete only when the store
// confirmed their fate; until then overlapping writes queue behind them.
//
// Thread rule: one reactor. Memory of an I/O stays valid until it completes. Bounded: `depth` I/Os.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "runtime/reactor.hpp"

namespace pf::client {

struct ClusterOptions {
    runtime::Address conductor;     // RPC address of the conductor
    std::string client_name;        // for people
    uint32_t depth = 128;           // I/Os in flight per volume, 1..1024
    runtime::Nanos io_timeout = 0;  // 0: I/O waits for ever for its store
    // Connections to shards that a volume keeps, while it can: those unused for longest are ended.
    uint32_t max_channels = 512;
    // How long to wait for a conductor that nobody answers for: a client may come up first.
    runtime::Nanos open_timeout = 10 * runtime::seconds;
};

struct VolumeInfo {
    uint64_t id = 0;
    std::string name;
    uint64_t size_bytes = 0;
    uint64_t shard_bytes = 0;
    uint32_t replicas = 0;
    bool read_only = false;
};

enum class IoKind : uint8_t {
    read,
    write,
    flush,
    discard,
    write_zeroes,
    compare_and_write,
    block_states,  // inside the library only: Volume::block_states()
};

struct Extent {
    uint64_t length_bytes = 0;
    uint32_t state = 0;  // 0 hole, 1 zero, 2 data
};

// One user I/O, embedded in its issuer; steady state allocates nothing.
struct Io : ListHook {
    IoKind kind = IoKind::read;
    bool no_hole = false;  // write_zeroes
    uint64_t offset = 0;
    uint64_t length = 0;
    std::span<const iovec> data;      // read: where to; write: from; compare_and_write: new data
    std::span<const iovec> expected;  // compare_and_write
    Errc result = Errc::ok;
    runtime::Buffer runs;             // out, block_states: what came, and
    uint64_t received = 0;            // how many bytes of it
    void (*complete)(Io&) = nullptr;  // once, from the reactor loop
    void* user = nullptr;
};

// Since the volume was opened.
struct VolumeCounters {
    uint64_t resent = 0;       // commands sent again after a reconnect or a change of epoch
    uint64_t copied = 0;       // writes whose memory changed under way, copied and resent (T13)
    uint64_t reread = 0;       // reads repeated because what arrived did not match its checksums
    uint64_t aborted = 0;      // writes that passed their deadline (R10)
    uint64_t reconnected = 0;  // data connections made again
};

class Volume {
  public:
    virtual ~Volume() = default;
    // Refuses at once (and then never calls `complete`): invalid_argument (unaligned to 512,
    // empty), out_of_range, read_only, cancelled (closing). Waits in line when `depth` is reached.
    [[nodiscard]] virtual Status submit(Io& io) = 0;
    [[nodiscard]] virtual const VolumeInfo& info() const = 0;
    [[nodiscard]] virtual const VolumeCounters& counters() const = 0;
    // Extents from `offset` on, merged; at most `limit`.
    [[nodiscard]] virtual runtime::Task<Result<std::vector<Extent>>> block_states(
        uint64_t offset, uint64_t length, uint32_t limit) = 0;
    // Asks the conductor for the size again.
    [[nodiscard]] virtual runtime::Task<Status> refresh() = 0;
    // Waits for I/O in flight, closes sessions and the handle.
    [[nodiscard]] virtual runtime::Task<Status> close() = 0;

    // co_await run(io): submits and waits; gives a Status.
    [[nodiscard]] runtime::Task<Status> run(Io& io);
};

// The connection to the conductor and the volumes opened through it.
class Cluster {
  public:
    [[nodiscard]] static Result<std::unique_ptr<Cluster>> create(ClusterOptions options);
    virtual ~Cluster() = default;
    [[nodiscard]] virtual runtime::Task<Result<std::unique_ptr<Volume>>> open(std::string name,
                                                                              bool read_only,
                                                                              bool exclusive) = 0;
    [[nodiscard]] virtual runtime::Task<Result<VolumeInfo>> create_volume(std::string name,
                                                                          uint64_t size_bytes,
                                                                          uint32_t replicas) = 0;
    [[nodiscard]] virtual runtime::Task<Status> delete_volume(std::string name, bool force) = 0;
    [[nodiscard]] virtual runtime::Task<Status> rename_volume(std::string name,
                                                              std::string new_name) = 0;
    [[nodiscard]] virtual runtime::Task<Status> resize_volume(std::string name,
                                                              uint64_t size_bytes) = 0;
    [[nodiscard]] virtual runtime::Task<Result<VolumeInfo>> stat(std::string name) = 0;
    [[nodiscard]] virtual runtime::Task<Result<std::vector<VolumeInfo>>> list() = 0;
    [[nodiscard]] virtual runtime::Task<void> close() = 0;
};

}  // namespace pf::client
