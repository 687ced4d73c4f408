// One client machine of the cluster simulation: opens every volume and lets workers do random I/O
// on it, telling the oracle what was begun and how it ended.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "oracle.hpp"
#include "runtime/sync.hpp"
#include "sim_cluster.hpp"

namespace pf::test {

struct IoTally {
    static constexpr size_t kinds = 7;  // client::IoKind
    std::array<uint64_t, kinds> done{};
    uint64_t failed = 0;  // ended with an error that may be
    uint64_t miscompares = 0;
    runtime::Nanos slowest = 0;
    std::string unexpected;  // an error that may not be

    [[nodiscard]] uint64_t total() const;
};

struct ClientPlan {
    uint64_t seed = 1;
    uint32_t workers = 3;           // per volume
    runtime::Nanos io_timeout = 0;  // 0: none, and then no I/O may fail
    bool corrupts = false;          // network and disk corrupt: an I/O that reads may say so
    bool work = true;               // false: only check_all
};

class SimClient {
  public:
    SimClient(SimCluster& cluster, Oracle& oracle, IoTally& tally, const std::string& name,
              ClientPlan plan);

    void start();
    // The process dies; what was in flight has an unknown outcome.
    void kill();
    // Workers end after their present I/O and the volumes are closed.
    void stop_work() { stopping_ = true; }
    [[nodiscard]] bool finished() const { return finished_; }
    [[nodiscard]] runtime::sim::SimNode& node() { return node_; }

    // Reads all volumes; the oracle judges.
    [[nodiscard]] runtime::Task<void> check_all();
    [[nodiscard]] std::string stuck() const;

  private:
    struct Process {
        std::unique_ptr<client::Cluster> cluster;
        std::vector<std::unique_ptr<client::Volume>> volumes;
        runtime::WaitGroup workers;
    };
    struct Target {  // of one I/O
        client::Volume* volume;
        uint32_t index;
    };

    [[nodiscard]] runtime::Task<void> live(std::shared_ptr<Process> process);
    [[nodiscard]] runtime::Task<void> open(Process& process);
    [[nodiscard]] runtime::Task<void> worker(Process& process, Target target, uint64_t seed);
    [[nodiscard]] runtime::Task<void> step(Target target, Rng& rng);
    [[nodiscard]] runtime::Task<void> read(Target target, uint64_t offset, uint64_t length,
                                           size_t piece);
    [[nodiscard]] runtime::Task<void> write(Target target, uint64_t offset, uint64_t length,
                                            size_t piece);
    [[nodiscard]] runtime::Task<void> zero(Target target, client::IoKind kind, uint64_t offset,
                                           uint64_t length);
    [[nodiscard]] runtime::Task<void> compare(Target target, uint64_t offset, uint64_t length,
                                              bool likely);
    [[nodiscard]] runtime::Task<Errc> run(Target target, client::Io& io, OpId id);
    [[nodiscard]] uint64_t pick_range(Rng& rng, uint64_t& length) const;

    SimCluster& cluster_;
    Oracle& oracle_;
    IoTally& tally_;
    ClientPlan plan_;
    runtime::sim::SimNode& node_;
    std::weak_ptr<Process> process_;
    std::set<OpId> outstanding_;
    uint64_t lives_ = 0;
    bool stopping_ = false;
    bool finished_ = false;
};

}  // namespace pf::test
