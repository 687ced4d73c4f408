#include "runtime/uring/uring_connection.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/assert.hpp"
#include "runtime/uring/socket_address.hpp"
#include "runtime/uring/uring_reactor.hpp"

namespace pf::runtime {

namespace {
constexpr size_t max_request_bytes = size_t{1} << 30;

uint64_t total_bytes(const StreamOp& op) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < op.iov_count; ++i) total += op.iov[i].iov_len;
    return total;
}
}  // namespace

UringConnection::UringConnection(Ring& ring, int fd, Address peer)
    : ring_(&ring),
      file_(ring.register_file(fd)),
      peer_(std::move(peer)),
      receive_(*this, &UringConnection::prepare_receive, &UringConnection::receive_done),
      send_(*this, &UringConnection::prepare_send, &UringConnection::send_done) {}

UringConnection::~UringConnection() {
    PF_ASSERT((!receive_.in_flight && !send_.in_flight) || ring_->draining());
    if (ring_ != nullptr) ring_->unregister_file(file_);
    ::close(file_.fd);
}

void UringConnection::start(Side& side, StreamOp& op) {
    PF_ASSERT(side.op == nullptr);  // one operation per direction
    PF_ASSERT(op.iov_count > 0 && op.iov_count <= StreamOp::max_iovecs);
    op.progress = 0;
    side.op = &op;
    ring_->start(side);
}

void UringConnection::finish(Side& side, int64_t result) {
    StreamOp& op = *side.op;
    side.op = nullptr;
    op.result = result;
    op.complete(op);
}

void UringConnection::submit_receive(StreamOp& op) {
    start(receive_, op);
}

void UringConnection::submit_send(StreamOp& op) {
    start(send_, op);
}

void UringConnection::prepare_receive(RingOp& base, io_uring_sqe& sqe) {
    auto& side = static_cast<Side&>(base);
    UringConnection& connection = side.connection;
    const StreamOp& op = *side.op;
    connection.set_low_water(op.low_water);
    if (op.iov_count == 1) {
        io_uring_prep_recv(&sqe, connection.file_.fd, op.iov->iov_base,
                           std::min(op.iov->iov_len, max_request_bytes), 0);
    } else {
        side.message.msg_iov = const_cast<iovec*>(op.iov);
        side.message.msg_iovlen = op.iov_count;
        io_uring_prep_recvmsg(&sqe, connection.file_.fd, &side.message, 0);
    }
    // An attempt on a socket known to be empty is wasted: wait for bytes first.
    if (!connection.more_to_receive_) sqe.ioprio |= IORING_RECVSEND_POLL_FIRST;
    connection.file_.apply(sqe);
}

// The kernel wakes sooner when its buffer runs full, so this cannot wait for bytes that never fit.
void UringConnection::set_low_water(uint32_t bytes) {
    if (bytes == low_water_) return;
    low_water_ = bytes;
    const int value = static_cast<int>(bytes);
    // Where it is refused, receives complete with less.
    (void)::setsockopt(file_.fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value));
}

void UringConnection::receive_done(RingOp& base, int32_t result, uint32_t cqe_flags) {
    auto& side = static_cast<Side&>(base);
    UringConnection& connection = side.connection;
    connection.more_to_receive_ = (cqe_flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
    if (result == 0 && connection.shut_) result = -ESHUTDOWN;
    finish(side, result);
}

void UringConnection::prepare_send(RingOp& base, io_uring_sqe& sqe) {
    // The kernel itself goes on after a short send when asked to wait for all.
    constexpr int flags = MSG_NOSIGNAL | MSG_WAITALL;
    auto& side = static_cast<Side&>(base);
    const UringConnection& connection = side.connection;
    const StreamOp& op = *side.op;
    const iovec* iov = op.iov;
    const iovec* end = op.iov + op.iov_count;
    uint64_t skip = op.progress;
    while (iov + 1 < end && skip >= iov->iov_len) skip -= (iov++)->iov_len;
    if (skip > 0 || iov + 1 == end) {
        io_uring_prep_send(&sqe, connection.file_.fd, static_cast<std::byte*>(iov->iov_base) + skip,
                           std::min(iov->iov_len - skip, max_request_bytes), flags);
    } else {
        side.message.msg_iov = const_cast<iovec*>(iov);
        side.message.msg_iovlen = static_cast<size_t>(end - iov);
        io_uring_prep_sendmsg(&sqe, connection.file_.fd, &side.message, flags);
    }
    connection.file_.apply(sqe);
}

void UringConnection::send_done(RingOp& base, int32_t result, uint32_t /*cqe_flags*/) {
    auto& side = static_cast<Side&>(base);
    StreamOp& op = *side.op;
    if (result < 0) {
        finish(side, result);
        return;
    }
    const uint64_t total = total_bytes(op);
    op.progress += static_cast<uint64_t>(result);
    if (op.progress >= total) {
        finish(side, static_cast<int64_t>(total));
    } else if (result == 0) {
        finish(side, -EIO);
    } else {
        side.connection.ring_->start(side);
    }
}

void UringConnection::shut_down() {
    if (shut_) return;
    shut_ = true;
    // Fails only when the peer is gone already, and then the operations end by themselves.
    (void)::shutdown(file_.fd, SHUT_RDWR);
}

void UringConnection::limit_unacknowledged(Nanos limit) {
    set_unacknowledged_limit(file_.fd, limit);
}

void UringConnection::leave() {
    PF_ASSERT(!receive_.in_flight && !send_.in_flight);
    ring_->unregister_file(file_);
    file_.slot = -1;
    ring_ = nullptr;
}

void UringConnection::enter(Reactor& reactor) {
    PF_ASSERT(ring_ == nullptr);
    ring_ = &static_cast<UringReactor&>(reactor).ring();
    file_ = ring_->register_file(file_.fd);
}

}  // namespace pf::runtime
