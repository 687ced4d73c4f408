#include "runtime/sim/sim_node.hpp"

#include <algorithm>

#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {

SimNode::SimNode(Simulation& simulation, uint32_t id, std::string name)
    : simulation_(simulation), id_(id), name_(std::move(name)) {}

SimNode::~SimNode() {
    if (running()) end_process(false);
}

SimDisk& SimNode::add_disk(const std::string& name, const DiskModel& model) {
    PF_ASSERT(find_disk(name) == nullptr);
    SimDisk& disk = simulation_.make_disk(name, model);
    attach(disk);
    return disk;
}

SimDisk* SimNode::find_disk(const std::string& name) {
    const auto found = disks_.find(name);
    return found == disks_.end() ? nullptr : found->second;
}

void SimNode::start(ProcessFactory factory) {
    PF_ASSERT(!running());
    factory_ = std::move(factory);
    powered_ = true;
    ++incarnation_;
    simulation_.trace(TraceKind::start, id_, incarnation_, 0);
    auto buffers = std::move(spare_buffers_);
    if (!buffers) buffers = std::make_unique<BufferPool>(simulation_.options().buffer_bytes);
    reactor_ = std::make_unique<SimReactor>(*this, simulation_.rng().next(), std::move(buffers));
    simulation_.network().unstall();
    if (factory_) reactor_->inside([&] { process_ = factory_(*reactor_); });
    wake_for_work();
}

void SimNode::restart() {
    PF_ASSERT(!in_turn_);
    if (running()) kill();
    ProcessFactory factory = factory_;
    start(std::move(factory));
}

void SimNode::kill() {
    if (!running()) return;
    if (in_turn_) {
        if (pending_ == Pending::nothing) pending_ = Pending::kill;
        return;
    }
    simulation_.trace(TraceKind::kill, id_, 0, 0);
    end_process(false);
}

void SimNode::power_loss() {
    if (in_turn_) {
        pending_ = Pending::power_loss;
        return;
    }
    simulation_.trace(TraceKind::power_loss, id_, 0, 0);
    powered_ = false;
    for (const auto& [name, disk] : disks_) disk->lose_power();
    if (running()) end_process(true);
}

void SimNode::end_process(bool power_lost) {
    // What is in flight is forgotten before the frames that hold it are destroyed.
    for (const auto& [name, disk] : disks_) disk->forget(*reactor_);
    simulation_.network().forget(*reactor_, power_lost);
    reactor_->end();
    // Frames refer to the process object, so it goes after them; what it still spawns goes last.
    reactor_->inside([&] { process_.reset(); });
    reactor_->end();
    auto buffers = reactor_->take_buffers();
    reactor_.reset();
    // Only if the process gave everything back; a buffer that a test holds keeps it from reuse.
    const bool whole = buffers->free_bytes() == buffers->arena().size();
    if (whole) spare_buffers_ = std::move(buffers);
    paused_ = false;
    pending_ = Pending::nothing;
    turn_time_ = stale_clock_ = never;
}

void SimNode::pause() {
    if (!running() || paused_) return;
    simulation_.trace(TraceKind::pause, id_, 0, 0);
    paused_ = true;
    paused_at_ = simulation_.now();
    turn_time_ = never;
}

void SimNode::resume() {
    if (!paused_) return;
    simulation_.trace(TraceKind::resume, id_, 0, 0);
    paused_ = false;
    stale_clock_ = paused_at_;
    wake_at(simulation_.now());
}

void SimNode::call(const std::function<void()>& function) {
    reactor().inside(function);
    wake_for_work();
}

int SimNode::count_operation() {
    ++operations_;
    if (planned_failures_.empty()) return 0;
    const auto found = planned_failures_.find(operations_);
    return found == planned_failures_.end() ? 0 : found->second;
}

void SimNode::wake_at(Nanos time) {
    if (!running() || paused_ || in_turn_) return;
    time = std::max({time, busy_until_, simulation_.now()});
    if (time >= turn_time_) return;
    turn_time_ = time;
    simulation_.schedule(time, *this, ++turn_token_);
}

void SimNode::wake_for_work() {
    if (!running() || in_turn_) return;
    const Nanos time = reactor_->next_work();
    if (time != never) wake_at(time);
}

void SimNode::on_event(uint64_t token) {
    if (!running() || paused_ || token != turn_token_ || turn_time_ == never) return;
    turn_time_ = never;
    if (stall_by_chance()) return;
    const Nanos clock = std::min(stale_clock_, simulation_.now());
    stale_clock_ = never;
    in_turn_ = true;
    reactor_->turn(clock);
    in_turn_ = false;
    busy_until_ = simulation_.now() + simulation_.options().turn_nanos;
    finish_turn();
}

void SimNode::finish_turn() {
    const Pending pending = pending_;
    pending_ = Pending::nothing;
    if (pending == Pending::kill) return kill();
    if (pending == Pending::power_loss) return power_loss();
    wake_for_work();
}

bool SimNode::stall_by_chance() {
    const FaultProfile& faults = simulation_.options().faults;
    if (faults.stall_ppm == 0 || !simulation_.rng().chance_ppm(faults.stall_ppm)) return false;
    pause();
    const Nanos duration = simulation_.rng().below(faults.stall_max) + 1;
    simulation_.after(duration, [this, incarnation = incarnation_] {
        if (incarnation == incarnation_) resume();
    });
    return true;
}

}  // namespace pf::runtime::sim
