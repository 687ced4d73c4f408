// What goes wrong in a cluster simulation, chosen by seed: processes die and come back, machines
// lose power or stop for a while, the network is cut, slowed, reset and corrupted, disks are slow.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "oracle.hpp"
#include "sim_client.hpp"
#include "sim_cluster.hpp"

namespace pf::test {

enum class Trouble : uint8_t {
    store_kill,
    store_power_loss,
    store_pause,
    conductor_kill,
    client_kill,
    client_pause,
    reset,
    partition,
    one_way,
    late,
    corrupt,
    slow_disk,
    random_resets,
    misread,
};
inline constexpr size_t trouble_count = 14;
extern const std::array<const char*, trouble_count> trouble_names;
using TroubleTally = std::array<uint64_t, trouble_count>;

class Nemesis {
  public:
    Nemesis(SimCluster& cluster, std::vector<std::unique_ptr<SimClient>>& clients, Oracle& oracle,
            TroubleTally& tally, uint64_t seed, bool corrupts);

    // Makes trouble until `end`, by actions on the simulation's clock.
    void run_until(runtime::Nanos end);
    // Everything is well from now on: processes run, the network is whole.
    void heal();
    void kill_store(bool power_loss);

  private:
    void next();
    void make(Trouble trouble);
    void misread();
    void store_trouble(Trouble trouble, runtime::Nanos duration);
    void client_trouble(Trouble trouble, runtime::Nanos duration);
    void network_trouble(Trouble trouble, runtime::Nanos duration);
    [[nodiscard]] runtime::Nanos draw_duration(runtime::Nanos longest);
    // Two machines that talk to each other.
    [[nodiscard]] std::pair<runtime::sim::SimNode*, runtime::sim::SimNode*> draw_pair();

    SimCluster& cluster_;
    std::vector<std::unique_ptr<SimClient>>& clients_;
    Oracle& oracle_;
    TroubleTally& tally_;
    Rng rng_;
    bool corrupts_;
    runtime::Nanos end_ = 0;
    runtime::sim::NetworkModel calm_;
};

}  // namespace pf::test
