// A whole one-node cluster in the simulator: a conductor over a metadata engine in memory, a store
// with its trays, and machines for clients. Everything runs the product's own code.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/volume.hpp"
#include "conductor/core.hpp"
#include "meta/memory_engine.hpp"
#include "runtime/sim/simulation.hpp"
#include "store/store.hpp"

namespace pf::test {

struct ClusterShape {
    uint64_t seed = 1;
    uint32_t trays = 1;
    uint32_t spare_disks = 0;  // in the store's machine, but not trays yet
    uint32_t volumes = 1;
    uint64_t disk_bytes = uint64_t{48} << 20;
    uint64_t volume_bytes = uint64_t{6} << 20;
    uint64_t shard_bytes = uint64_t{4} << 20;  // a volume has more than one shard
    bool volatile_cache = true;
    bool fua = true;
    bool discard = false;  // the store trims what its trays free
};

[[nodiscard]] std::string volume_name(uint32_t index);

class SimCluster {
  public:
    static constexpr uint16_t conductor_port = 49182;
    static constexpr uint16_t store_port = 49162;

    explicit SimCluster(const ClusterShape& shape);

    // Starts both daemons, formats the trays and makes the volumes. What went wrong, or nothing.
    [[nodiscard]] std::string create();
    // Both daemons serve, and the conductor knows the store.
    [[nodiscard]] bool ready() const;
    // The conductor has heard that the store is there and all its trays are well.
    [[nodiscard]] bool healthy() const;
    // A new machine for clients; it is off.
    runtime::sim::SimNode& add_client(const std::string& name);
    [[nodiscard]] static client::ClusterOptions client_options(runtime::Nanos io_timeout,
                                                               uint32_t depth);

    [[nodiscard]] runtime::sim::Simulation& sim() { return sim_; }
    [[nodiscard]] runtime::sim::SimNode& store_node() { return store_node_; }
    [[nodiscard]] runtime::sim::SimNode& conductor_node() { return conductor_node_; }
    [[nodiscard]] const std::vector<runtime::sim::SimDisk*>& disks() const { return disks_; }
    [[nodiscard]] pfs::Store* store() const;
    // Changes of the cluster, asked of the conductor on its own machine.
    [[nodiscard]] runtime::Task<Errc> add_spare_tray(bool force);
    [[nodiscard]] runtime::Task<Errc> remove_empty_tray();
    // Of the volume; without a name, of all trays.
    [[nodiscard]] runtime::Task<Errc> accept_loss(std::string volume);
    [[nodiscard]] bool has_losses() const;
    [[nodiscard]] size_t tray_count() const;
    [[nodiscard]] uint32_t open_handles() const;
    // Of the conductor's metadata engine; nothing, if the conductor is down.
    [[nodiscard]] meta::MemoryEngine* metadata() const;
    [[nodiscard]] const ClusterShape& shape() const { return shape_; }

  private:
    struct ConductorProcess;
    struct StoreProcess {
        std::unique_ptr<pfs::Store> store;
    };

    std::shared_ptr<void> boot_conductor(runtime::sim::SimReactor& reactor);
    std::shared_ptr<void> boot_store(runtime::sim::SimReactor& reactor);
    [[nodiscard]] runtime::Task<void> start_store(runtime::sim::SimReactor& reactor,
                                                  std::shared_ptr<StoreProcess> process);
    [[nodiscard]] runtime::Task<std::string> make_trays();
    [[nodiscard]] runtime::Task<std::string> make_volumes();

    ClusterShape shape_;
    // What the daemons keep in their data folders.
    meta::MemoryStore metadata_;
    Uuid cluster_uuid_;
    std::vector<pfs::TrayPlace> trays_;

    runtime::sim::Simulation sim_;
    runtime::sim::SimNode& conductor_node_;
    runtime::sim::SimNode& store_node_;
    std::vector<runtime::sim::SimDisk*> disks_;
    runtime::sim::SimDisk* spare_ = nullptr;
    std::weak_ptr<ConductorProcess> conductor_;
    std::weak_ptr<StoreProcess> store_;
};

}  // namespace pf::test
