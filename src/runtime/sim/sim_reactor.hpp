// The reactor of one simulated process. It runs in turns: everything that has arrived completes,
// due timers fire, and coroutines run until none is ready.
#pragma once

#include <vector>

#include "runtime/reactor.hpp"

namespace pf::runtime::sim {

class SimNode;

class SimReactor final : public Reactor {
  public:
    SimReactor(SimNode& node, uint64_t seed, std::unique_ptr<BufferPool> buffers);
    ~SimReactor() override;

    [[nodiscard]] SimNode& node() { return node_; }
    [[nodiscard]] Nanos now() const override;
    [[nodiscard]] Nanos fresh_now() const override;

    [[nodiscard]] Task<Result<std::unique_ptr<Disk>>> open_disk(std::string path,
                                                                DiskOptions options) override;
    [[nodiscard]] Result<std::unique_ptr<Listener>> listen(const Address& address) override;
    [[nodiscard]] Task<Result<std::unique_ptr<Connection>>> connect(Address address,
                                                                    Nanos timeout) override;
    // From code of this node, or from outside every node (a test, Simulation::at). A killed process
    // forgets the calls that it had not run.
    void post(PostedCall& call) override;

    // For the parts of the simulator. What arrived is handled in the next turn, in this order.
    void arrived(DiskOp& op);
    void arrived(StreamOp& op);
    void arrived_for_listener(uint16_t port);
    void arrived_for_connect(uint64_t request);

  private:
    friend class SimNode;
    struct Arrival {
        enum class Kind : uint8_t { disk, stream, listener, connect, call } kind;
        void* object;
        uint64_t number;
    };

    void arrive(const Arrival& arrival);
    void handle(const Arrival& arrival);
    // One turn with `clock` as now(); returns whether more is ready.
    bool turn(Nanos clock);
    // Earliest time at which there is something to do.
    [[nodiscard]] Nanos next_work();
    void end();
    template <class Function>
    void inside(Function&& function) {
        Enter enter(*this);
        function();
    }

    SimNode& node_;
    std::vector<Arrival> arrivals_;
    std::vector<Arrival> handling_;
    bool in_turn_ = false;
    Nanos clock_ = 0;
};

}  // namespace pf::runtime::sim
