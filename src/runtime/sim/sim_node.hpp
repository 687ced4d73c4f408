// A simulated machine: its disks and at most one process, which is one SimReactor and what the
// factory made on it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/sim/event_queue.hpp"
#include "runtime/sim/sim_disk.hpp"
#include "runtime/sim/sim_reactor.hpp"

namespace pf::runtime::sim {

class Simulation;

// Makes the process on a fresh reactor: spawns its tasks and returns whatever must live as long as
// the process. Called on the reactor (Reactor::current() is set). May return null.
using ProcessFactory = std::function<std::shared_ptr<void>(SimReactor&)>;

class SimNode final : public EventSink {
  public:
    SimNode(Simulation& simulation, uint32_t id, std::string name);
    ~SimNode();

    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] uint32_t id() const { return id_; }
    [[nodiscard]] Simulation& simulation() { return simulation_; }

    // Disks. Names are unique in a node.
    SimDisk& add_disk(const std::string& name, const DiskModel& model);
    [[nodiscard]] SimDisk* find_disk(const std::string& name);
    // Moves a drive here from another node (or back). Only while no process has it open.
    void attach(SimDisk& disk) { disks_[disk.name()] = &disk; }
    void detach(const std::string& name) { disks_.erase(name); }

    // The process.
    void start(ProcessFactory factory = {});  // powers the node on
    void restart();                           // kill, if it runs, and start with the last factory
    // SIGKILL. Coroutines are destroyed, peers see resets after the network's delay. Called from
    // within the node's own turn it happens at the end of that turn.
    void kill();
    // kill, and what the volatile caches of its disks held is lost subject to chance; peers see
    // nothing (no reset), and connecting to it times out until it is started again.
    void power_loss();
    // SIGSTOP and SIGCONT. Time goes on, nothing runs; the network accepts and buffers for it. The
    // first turn after resume still has the clock reading from before the pause in now(), as a loop
    // that was stopped after reading its clock; fresh_now() tells the truth.
    void pause();
    void resume();
    [[nodiscard]] bool running() const { return reactor_ != nullptr; }
    [[nodiscard]] bool paused() const { return paused_; }
    [[nodiscard]] bool powered() const { return powered_; }
    // How often it was started.
    [[nodiscard]] uint32_t incarnation() const { return incarnation_; }

    [[nodiscard]] SimReactor& reactor() {
        PF_ASSERT(reactor_ != nullptr);
        return *reactor_;
    }

    // Runs `function` as code of this node (Reactor::current() is set), for tests and actions that
    // touch what belongs to it: waking a queue, shutting a listener down.
    void call(const std::function<void()>& function);

    // Disk and network operations, for sweeps that fail each in turn.
    void fail_operation(uint64_t n, int error) { planned_failures_[n] = error; }
    [[nodiscard]] uint64_t operations_so_far() const { return operations_; }
    // Counts one; returns the errno it must fail with, or 0.
    [[nodiscard]] int count_operation();

    // For the parts of the simulator: run a turn no later than `time`.
    void wake_at(Nanos time);
    void wake_for_work();
    void on_event(uint64_t token) override;  // a turn

  private:
    friend class Simulation;
    void end_process(bool power_lost);
    bool stall_by_chance();
    void finish_turn();

    Simulation& simulation_;
    uint32_t id_;
    std::string name_;
    std::map<std::string, SimDisk*> disks_;

    ProcessFactory factory_;
    std::unique_ptr<SimReactor> reactor_;
    std::unique_ptr<BufferPool> spare_buffers_;  // of the last process
    std::shared_ptr<void> process_;
    uint32_t incarnation_ = 0;
    bool powered_ = false;
    bool paused_ = false;
    Nanos paused_at_ = 0;
    bool in_turn_ = false;
    enum class Pending : uint8_t { nothing, kill, power_loss } pending_ = Pending::nothing;

    Nanos turn_time_ = never;  // of the scheduled turn
    uint64_t turn_token_ = 0;  // an event with an older token is stale
    Nanos busy_until_ = 0;
    Nanos stale_clock_ = never;  // what the next turn has as now(), after a pause

    uint64_t operations_ = 0;
    std::map<uint64_t, int> planned_failures_;
};

}  // namespace pf::runtime::sim
