// The deterministic simulator: nodes, disks and a network under virtual time, driven by one seed.
//
//     Simulation sim({.seed = 42});
//     SimNode& node = sim.add_node("a");
//     SimDisk& disk = node.add_disk("disk0", {.size_bytes = 64 << 20});
//     node.start();
//     std::optional<Status> done = sim.run_task(node, work(node.reactor()));
//     node.power_loss();
//     node.restart();
//
// Determinism. The same seed, build options aside, gives the same events and the same trace_hash():
// everything random comes from rng(), events of equal time have one order, and nothing depends on
// addresses or the wall clock. Code under test that breaks this (unordered iteration, uninitialised
// bytes in what it writes or sends) shows up as a different hash.
//
// One Simulation lives on one thread; several on several threads do not know of each other. Faults:
// see faults.hpp. Errors: misuse of the seam (an unaligned offset, memory changed under a write)
// asserts.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.hpp"
#include "runtime/sim/event_queue.hpp"
#include "runtime/sim/faults.hpp"
#include "runtime/sim/sim_disk.hpp"
#include "runtime/sim/sim_network.hpp"
#include "runtime/sim/sim_node.hpp"

namespace pf::runtime::sim {

struct SimOptions {
    uint64_t seed = 1;
    // A turn of a node's loop takes this long, so that a busy loop moves time.
    Nanos turn_nanos = 1 * microseconds;
    // Of each node's BufferPool. Making one costs about 40 us per MiB; restarts reuse it.
    size_t buffer_bytes = size_t{16} << 20;
    // Hash the bytes that are written and sent too: finds uninitialised memory.
    bool trace_contents = true;
    FaultProfile faults{};
};

enum class TraceKind : uint8_t {
    turn = 1,
    start,
    kill,
    power_loss,
    pause,
    resume,
    disk_submit,
    disk_complete,
    connect,
    connected,
    send,
    deliver,
    receive,
    reset,
    action,
};

class Simulation final : public EventSink {
  public:
    explicit Simulation(SimOptions options = {});
    Simulation(const Simulation&) = delete;
    Simulation& operator=(const Simulation&) = delete;
    ~Simulation();

    [[nodiscard]] const SimOptions& options() const { return options_; }
    [[nodiscard]] Nanos now() const { return now_; }
    [[nodiscard]] Rng& rng() { return rng_; }
    // Equal for equal seeds in every run and build.
    [[nodiscard]] uint64_t trace_hash() const { return trace_.value(); }
    [[nodiscard]] uint64_t events_so_far() const { return events_; }

    // Names are unique; nodes live as long as the simulation. A new node is powered off.
    SimNode& add_node(std::string name);
    [[nodiscard]] SimNode* find_node(std::string_view name);
    [[nodiscard]] SimNode& node(uint32_t id) { return *nodes_[id]; }
    [[nodiscard]] size_t node_count() const { return nodes_.size(); }
    [[nodiscard]] SimNetwork& network() { return network_; }

    // Running. Times are virtual and absolute. step() runs one event and says whether there was
    // one.
    bool step();
    void run_until(Nanos time);
    void run_for(Nanos duration) { run_until(now_ + duration); }
    // Until `done()` holds (checked after every event), nothing is left to happen, or `limit` has
    // passed. Returns done().
    bool run_until(const std::function<bool()>& done, Nanos limit);
    // Until nothing is left to happen or `limit` has passed; returns whether nothing is left.
    bool run_until_idle(Nanos limit = 3600 * seconds);

    // Spawns `task` on the node and runs until it has finished. Nothing when it did not within
    // `limit`, or the node was killed meanwhile.
    template <class T>
    std::optional<T> run_task(SimNode& node, Task<T> task, Nanos limit = 600 * seconds);
    // The same for Task<void>; false when it did not finish.
    bool run_task(SimNode& node, Task<void> task, Nanos limit = 600 * seconds);

    // Runs `action` at a virtual time, outside every node: scripts kill, partition and so on.
    void at(Nanos time, std::function<void()> action);
    void after(Nanos delay, std::function<void()> action) { at(now_ + delay, std::move(action)); }

    // The n-th disk or network operation (from 1, counted since the node was made) of `node` fails
    // with `error` (an errno value); a network failure also resets the connection.
    void fail_operation(SimNode& node, uint64_t n, int error) { node.fail_operation(n, error); }
    [[nodiscard]] uint64_t operations_so_far(const SimNode& node) const {
        return node.operations_so_far();
    }

    // Turns the dial: all disks, the network and all nodes, from now on.
    void set_faults(const FaultProfile& faults);

    // For the parts of the simulator.
    uint64_t schedule(Nanos time, EventSink& sink, uint64_t token) {
        return queue_.push(std::max(time, now_), sink, token);
    }
    void trace(TraceKind kind, uint64_t subject, uint64_t a, uint64_t b) {
        trace_.add(now_);
        trace_.add(static_cast<uint64_t>(kind) << 56 | subject);
        trace_.add(a);
        trace_.add(b);
    }
    void trace_word(uint64_t word) { trace_.add(word); }
    SimDisk& make_disk(std::string name, const DiskModel& model);

    void on_event(uint64_t token) override;  // the actions of at()

  private:
    void prepare_nodes();
    bool run_event();

    SimOptions options_;
    Rng rng_;
    Nanos now_ = 1 * seconds;  // not zero: zero often means "never" to a caller
    uint64_t events_ = 0;
    EventQueue queue_;
    TraceHash trace_;
    std::map<uint64_t, std::function<void()>> actions_;
    uint64_t next_action_ = 0;
    SimNetwork network_;
    std::vector<std::unique_ptr<SimDisk>> disks_;
    std::vector<std::unique_ptr<SimNode>> nodes_;
};

namespace detail {
template <class T>
Task<void> store_result(Task<T> task, std::shared_ptr<std::optional<T>> result) {
    T value = co_await task;
    result->emplace(std::move(value));
}
inline Task<void> store_done(Task<void> task, std::shared_ptr<bool> done) {
    co_await task;
    *done = true;
}
}  // namespace detail

template <class T>
std::optional<T> Simulation::run_task(SimNode& node, Task<T> task, Nanos limit) {
    auto result = std::make_shared<std::optional<T>>();
    node.reactor().spawn(detail::store_result(std::move(task), result));
    run_until([&] { return result->has_value() || !node.running(); }, now_ + limit);
    return std::move(*result);
}

inline bool Simulation::run_task(SimNode& node, Task<void> task, Nanos limit) {
    auto done = std::make_shared<bool>(false);
    node.reactor().spawn(detail::store_done(std::move(task), done));
    run_until([&] { return *done || !node.running(); }, now_ + limit);
    return *done;
}

}  // namespace pf::runtime::sim
