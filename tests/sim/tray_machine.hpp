// One simulated machine with one small disk and a tray on it: what the crash and fault suites run
// on.
#pragma once

#include <memory>

#include "runtime/sim/simulation.hpp"
#include "tray/tray.hpp"

namespace pf::test {

inline const Uuid cluster_uuid = Uuid::from_random(1, 2);
inline constexpr uint64_t machine_disk_bytes = uint64_t{6} << 20;
inline constexpr uint64_t machine_log_bytes = uint64_t{64} << 10;

// What lives as long as the simulated process: a tray has background work of its own, which ends
// with the process.
struct Process {
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
        options.log_bytes = machine_log_bytes;
        PF_CO_TRY(co_await tray::Tray::format(**disk, options));
    }
    tray::MountOptions options;
    options.cluster = cluster_uuid;
    options.cache_bytes = 0;  // the least there is: tables of older generations come and go
    auto tray = co_await tray::Tray::mount(std::move(*disk), options);
    if (!tray) co_return std::unexpected<Error>(std::move(tray).error());
    process.tray = std::move(*tray);
    co_return process.tray.get();
}

// One simulated machine with one disk, used again for every state.
class Machine {
  public:
    explicit Machine(uint64_t seed)
        : sim_({.seed = seed, .buffer_bytes = size_t{8} << 20, .trace_contents = false}),
          node_(sim_.add_node("node")),
          disk_(node_.add_disk("disk", model(seed))) {}

    runtime::sim::Simulation& sim() { return sim_; }
    runtime::sim::SimNode& node() { return node_; }
    runtime::sim::SimDisk& disk() { return disk_; }

    // A fresh process on the machine.
    void start() {
        node_.start([this](runtime::sim::SimReactor&) {
            auto process = std::make_shared<Process>();
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
    static runtime::sim::DiskModel model(uint64_t seed) {
        runtime::sim::DiskModel model;
        model.size_bytes = machine_disk_bytes;
        model.fua = seed % 2 == 0;
        return model;
    }
    runtime::sim::Simulation sim_;
    runtime::sim::SimNode& node_;
    runtime::sim::SimDisk& disk_;
    Process* process_ = nullptr;
};

}  // namespace pf::test
