#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {

Simulation::Simulation(SimOptions options)
    : options_(options), rng_(options.seed), network_(*this, options.faults.network) {}

Simulation::~Simulation() = default;

SimNode& Simulation::add_node(std::string name) {
    PF_ASSERT(find_node(name) == nullptr);
    const auto id = static_cast<uint32_t>(nodes_.size());
    nodes_.push_back(std::make_unique<SimNode>(*this, id, std::move(name)));
    return *nodes_.back();
}

SimNode* Simulation::find_node(std::string_view name) {
    for (const auto& node : nodes_) {
        if (node->name() == name) return node.get();
    }
    return nullptr;
}

SimDisk& Simulation::make_disk(std::string name, const DiskModel& model) {
    const auto id = static_cast<uint32_t>(disks_.size());
    DiskModel used = model;
    if (used.faults == DiskFaultRates{}) used.faults = options_.faults.disk;
    disks_.push_back(std::make_unique<SimDisk>(*this, id, std::move(name), used));
    return *disks_.back();
}

void Simulation::set_faults(const FaultProfile& faults) {
    options_.faults = faults;
    network_.model() = faults.network;
    for (const auto& disk : disks_) disk->model().faults = faults.disk;
}

// Code outside a turn (a test, an action) may have spawned tasks or armed timers on any node.
void Simulation::prepare_nodes() {
    for (const auto& node : nodes_) node->wake_for_work();
}

bool Simulation::run_event() {
    if (queue_.empty()) return false;
    const Event event = queue_.pop();
    now_ = event.time;
    ++events_;
    event.sink->on_event(event.token);
    return true;
}

bool Simulation::step() {
    prepare_nodes();
    return run_event();
}

void Simulation::run_until(Nanos time) {
    prepare_nodes();
    while (queue_.next_time() <= time && run_event()) {
    }
    now_ = std::max(now_, time);
}

bool Simulation::run_until(const std::function<bool()>& done, Nanos limit) {
    prepare_nodes();
    while (!done()) {
        if (queue_.next_time() > limit) {
            if (!queue_.empty()) now_ = std::max(now_, limit);
            return false;
        }
        if (!run_event()) return false;
    }
    return true;
}

bool Simulation::run_until_idle(Nanos limit) {
    run_until([] { return false; }, limit);
    return queue_.empty();
}

void Simulation::at(Nanos time, std::function<void()> action) {
    actions_.emplace(next_action_, std::move(action));
    schedule(std::max(time, now_), *this, next_action_++);
}

void Simulation::on_event(uint64_t token) {
    const auto found = actions_.find(token);
    PF_ASSERT(found != actions_.end());
    const std::function<void()> action = std::move(found->second);
    actions_.erase(found);
    trace(TraceKind::action, token, 0, 0);
    action();
    prepare_nodes();
}

}  // namespace pf::runtime::sim
