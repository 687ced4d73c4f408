// A TCP or Unix stream on the reactor's ring. One receive and one send in flight, each one request
// to the kernel into or from the caller's memory; no bytes are copied here.
#pragma once

#include <sys/socket.h>

#include "runtime/network.hpp"
#include "runtime/uring/ring.hpp"

namespace pf::runtime {

class UringConnection final : public Connection {
  public:
    // Takes over the connected socket.
    UringConnection(Ring& ring, int fd, Address peer);
    ~UringConnection() override;

    void submit_receive(StreamOp& op) override;
    void submit_send(StreamOp& op) override;
    void shut_down() override;
    void limit_unacknowledged(Nanos limit) override;
    void leave() override;
    void enter(Reactor& reactor) override;
    [[nodiscard]] const Address& peer() const override { return peer_; }

  private:
    struct Side : RingOp {
        Side(UringConnection& owner, Prepare prepare_function, Done done_function)
            : RingOp(prepare_function, done_function), connection(owner) {}
        UringConnection& connection;
        StreamOp* op = nullptr;
        msghdr message{};
    };

    static void prepare_receive(RingOp& base, io_uring_sqe& sqe);
    static void receive_done(RingOp& base, int32_t result, uint32_t cqe_flags);
    static void prepare_send(RingOp& base, io_uring_sqe& sqe);
    static void send_done(RingOp& base, int32_t result, uint32_t cqe_flags);
    void start(Side& side, StreamOp& op);
    void set_low_water(uint32_t bytes);
    static void finish(Side& side, int64_t result);

    Ring* ring_;  // nullptr: on its way to another reactor
    RingFile file_;
    Address peer_;
    bool shut_ = false;
    // Whether the last receive left bytes in the socket: then the next one need not wait for them.
    uint32_t low_water_ = 1;
    bool more_to_receive_ = false;
    Side receive_;
    Side send_;
};

}  // namespace pf::runtime
