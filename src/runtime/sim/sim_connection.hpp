// What processes hold of the simulated network: connections, listeners and attempts to connect.
#pragma once

#include <coroutine>
#include <deque>
#include <memory>

#include "runtime/network.hpp"
#include "runtime/sim/sim_network.hpp"
#include "runtime/sync.hpp"

namespace pf::runtime::sim {

class SimConnection final : public Connection {
  public:
    SimConnection(SimNetwork& network, uint64_t link, unsigned side, Address peer)
        : network_(network), link_(link), side_(side), peer_(std::move(peer)) {}
    ~SimConnection() override { network_.release(link_, side_); }

    void submit_receive(StreamOp& op) override { network_.submit_receive(link_, side_, op); }
    void submit_send(StreamOp& op) override { network_.submit_send(link_, side_, op); }
    void shut_down() override { network_.shut_down(link_, side_); }
    [[nodiscard]] const Address& peer() const override { return peer_; }

  private:
    SimNetwork& network_;
    uint64_t link_;
    unsigned side_;
    Address peer_;
};

class SimListener final : public Listener {
  public:
    static constexpr size_t max_backlog = 128;

    SimListener(SimNetwork& network, SimReactor& reactor, Address local)
        : network_(network), reactor_(reactor), local_(std::move(local)) {}
    ~SimListener() override;

    [[nodiscard]] Task<Result<std::unique_ptr<Connection>>> accept() override;
    void shut_down() override;
    [[nodiscard]] const Address& local() const override { return local_; }

  private:
    friend class SimNetwork;
    struct Waiting {
        uint64_t link;
        Address peer;
    };
    SimNetwork& network_;
    SimReactor& reactor_;
    Address local_;
    std::deque<Waiting> backlog_;
    WaitQueue waiters_;
    bool shut_ = false;
};

// co_await gives an errno, or 0 and then take_link() the connection.
class ConnectAwaiter {
  public:
    ConnectAwaiter(SimNetwork& network, SimReactor& reactor, const Address& address, Nanos timeout)
        : network_(network), reactor_(reactor), address_(address), timeout_(timeout) {}
    ConnectAwaiter(const ConnectAwaiter&) = delete;
    ConnectAwaiter& operator=(const ConnectAwaiter&) = delete;
    ~ConnectAwaiter() { network_.cancel_connect(request_); }

    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) {
        waiter_ = waiter;
        request_ = network_.start_connect(*this, reactor_, address_, timeout_);
    }
    int await_resume() const noexcept { return error_; }
    [[nodiscard]] uint64_t take_link() { return network_.take_connected(request_); }

  private:
    friend class SimNetwork;
    SimNetwork& network_;
    SimReactor& reactor_;
    const Address& address_;
    Nanos timeout_;
    uint64_t request_ = 0;
    int error_ = 0;
    std::coroutine_handle<> waiter_;
};

}  // namespace pf::runtime::sim
