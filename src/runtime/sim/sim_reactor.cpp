#include "runtime/sim/sim_reactor.hpp"

#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {

SimReactor::SimReactor(SimNode& node, uint64_t seed, std::unique_ptr<BufferPool> buffers)
    : Reactor(seed), node_(node) {
    set_buffers(std::move(buffers));
}

SimReactor::~SimReactor() {
    end();
}

Nanos SimReactor::now() const {
    return in_turn_ ? clock_ : fresh_now();
}

Nanos SimReactor::fresh_now() const {
    return node_.simulation().now();
}

Task<Result<std::unique_ptr<Disk>>> SimReactor::open_disk(std::string path, DiskOptions options) {
    SimDisk* disk = node_.find_disk(path);
    if (disk == nullptr && options.create_bytes > 0) {
        DiskModel model;
        model.size_bytes = round_up(options.create_bytes, block_bytes);
        disk = &node_.add_disk(path, model);
    }
    if (disk == nullptr) co_return fail(Errc::not_found, "there is no simulated disk " + path);
    if (options.exclusive && disk->holder_ != nullptr)
        co_return fail(Errc::busy, path + " is already open");
    std::unique_ptr<Disk> handle = std::make_unique<SimDiskHandle>(*disk, *this, options);
    co_return handle;
}

void SimReactor::post(PostedCall& call) {
    arrive({Arrival::Kind::call, &call, 0});
}

void SimReactor::arrived(DiskOp& op) {
    arrive({Arrival::Kind::disk, &op, 0});
}

void SimReactor::arrived(StreamOp& op) {
    arrive({Arrival::Kind::stream, &op, 0});
}

void SimReactor::arrived_for_listener(uint16_t port) {
    arrive({Arrival::Kind::listener, nullptr, port});
}

void SimReactor::arrived_for_connect(uint64_t request) {
    arrive({Arrival::Kind::connect, nullptr, request});
}

void SimReactor::arrive(const Arrival& arrival) {
    arrivals_.push_back(arrival);
    node_.wake_at(node_.simulation().now());
}

bool SimReactor::turn(Nanos clock) {
    Enter enter(*this);
    in_turn_ = true;
    clock_ = clock;
    handling_.swap(arrivals_);
    for (const Arrival& arrival : handling_) handle(arrival);
    const size_t handled = handling_.size();
    handling_.clear();
    const size_t fired = timers().fire_due(clock);
    const bool more = run_ready();
    in_turn_ = false;
    node_.simulation().trace(TraceKind::turn, node_.id(), handled, fired);
    return more;
}

Nanos SimReactor::next_work() {
    const bool now = !ready_.empty() || !end_of_turn_.empty() || !arrivals_.empty();
    return now ? 0 : timers().next_deadline();
}

void SimReactor::end() {
    arrivals_.clear();
    handling_.clear();
    destroy_detached();
}

}  // namespace pf::runtime::sim
