// One simulated machine with one small disk and a tray on it: what the crash and fault suites run
// on.
#pragma once

#include <iterator>
#include <memory>

#include "base/rng.hpp"
#include "runtime/sim/simulation.hpp"
#include "tray/inspect.hpp"
#include "tray/tray.hpp"

namespace pf::test {

inline const Uuid cluster_uuid = Uuid::from_random(1, 2);

// Sizes and manners of a machine's disk. Small trays with long logs reuse their blocks while
// records that name them are still unconfirmed; slow writes keep them so.
struct MachineShape {
    uint64_t seed = 1;
    uint64_t disk_bytes = uint64_t{6} << 20;
    uint64_t log_bytes = uint64_t{64} << 10;
    bool volatile_cache = true;
    bool fua = true;
    bool discard = false;  // the tray trims what it frees
    uint32_t discard_error_ppm = 0;
    uint32_t slow_ppm = 0;
    uint32_t slow_read_ppm = 0;
    runtime::Nanos slow_extra = 0;

    static MachineShape draw(uint64_t seed) {
        Rng rng(seed ^ 0x5a9e);
        MachineShape shape;
        shape.seed = seed;
        shape.disk_bytes = rng.between(5, 12) << 19;
        shape.log_bytes = uint64_t{64} << (10 + (rng.below(3) == 0 ? rng.below(4) : 0));
        shape.volatile_cache = rng.below(6) != 0;
        shape.fua = rng.below(2) == 0;
        constexpr uint32_t rates[] = {0, 0, 10'000, 40'000, 150'000};
        shape.slow_ppm = rates[rng.below(std::size(rates))];
        // Now and then so slow that the tray is written over once while a read is under way.
        const uint64_t slowest_ms = rng.below(3) == 0 ? 1000 : 40;
        shape.slow_extra = rng.between(1, slowest_ms) * runtime::milliseconds;
        // Or the reads alone are: what they read is superseded, and would be allocated again.
        if (rng.below(4) == 0) {
            shape.slow_ppm = 0;
            shape.slow_read_ppm = 250'000;
        }
        shape.discard = rng.below(4) == 0;
        shape.discard_error_ppm = rng.below(2) == 0 ? 100'000 : 0;
        return shape;
    }
    // The same disk in another machine, in a hurry.
    [[nodiscard]] MachineShape checker() const {
        MachineShape shape = *this;
        ++shape.seed;
        shape.slow_ppm = shape.slow_read_ppm = 0;
        return shape;
    }
};

// What lives as long as the simulated process: a tray has background work of its own, which ends
// with the process.
struct Process {
    uint64_t log_bytes = 0;  // for a format
    bool discard = false;
    std::unique_ptr<tray::Tray> tray;
};

// Opens the tray of this process, formatting the disk first if asked to.
inline runtime::Task<Result<tray::Tray*>> open_tray(Process& process, bool format) {
    auto& reactor = runtime::Reactor::current();
    runtime::DiskOptions disk_options;
    auto disk = co_await reactor.open_disk("disk", disk_options);
    if (!disk) co_return std::unexpected<Error>(std::move(disk).error());
    if (format) {
        tray::FormatOptions options;
        options.cluster = cluster_uuid;
        options.tray = Uuid::from_random(3, 4);
        options.log_bytes = process.log_bytes;
        PF_CO_TRY(co_await tray::Tray::format(**disk, options));
    }
    tray::MountOptions options;
    options.cluster = cluster_uuid;
    options.discard = process.discard;
    options.cache_bytes = 0;  // the least there is: tables of older generations come and go
    auto tray = co_await tray::Tray::mount(std::move(*disk), options);
    if (!tray) co_return std::unexpected<Error>(std::move(tray).error());
    process.tray = std::move(*tray);
    co_return process.tray.get();
}

// What pfinspect finds on the disk of this machine.
inline runtime::Task<Result<tray::VerifyReport>> inspect_disk() {
    runtime::DiskOptions options;
    options.read_only = true;
    auto disk = co_await runtime::Reactor::current().open_disk("disk", options);
    if (!disk) co_return std::unexpected<Error>(std::move(disk).error());
    tray::Inspector inspector(std::move(*disk));
    co_return co_await inspector.verify();
}

// One simulated machine with one disk, used again for every state.
class Machine {
  public:
    explicit Machine(const MachineShape& shape)
        : shape_(shape),
          sim_({.seed = shape.seed, .buffer_bytes = size_t{8} << 20, .trace_contents = false}),
          node_(sim_.add_node("node")),
          disk_(node_.add_disk("disk", model(shape))) {}

    [[nodiscard]] const MachineShape& shape() const { return shape_; }

    runtime::sim::Simulation& sim() { return sim_; }
    runtime::sim::SimNode& node() { return node_; }
    runtime::sim::SimDisk& disk() { return disk_; }

    // Its disk is not slow any more, for a check that reads block by block.
    void hurry() {
        auto& faults = disk_.model().faults;
        faults.slow_ppm = faults.slow_read_ppm = 0;
    }

    // A fresh process on the machine.
    void start() {
        node_.start([this](runtime::sim::SimReactor&) {
            auto process = std::make_shared<Process>();
            process->log_bytes = shape_.log_bytes;
            process->discard = shape_.discard;
            process_ = process.get();
            return process;
        });
    }
    void restart() {
        node_.kill();
        start();
    }
    Process& process() { return *process_; }

  private:
    static runtime::sim::DiskModel model(const MachineShape& shape) {
        runtime::sim::DiskModel model;
        model.size_bytes = shape.disk_bytes;
        model.volatile_cache = shape.volatile_cache;
        model.fua = shape.fua;
        model.faults.discard_error_ppm = shape.discard_error_ppm;
        model.faults.slow_ppm = shape.slow_ppm;
        model.faults.slow_read_ppm = shape.slow_read_ppm;
        model.faults.slow_extra = shape.slow_extra;
        return model;
    }
    MachineShape shape_;
    runtime::sim::Simulation sim_;
    runtime::sim::SimNode& node_;
    runtime::sim::SimDisk& disk_;
    Process* process_ = nullptr;
};

}  // namespace pf::test
