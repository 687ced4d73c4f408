// The receiving half of a connection: one buffer that a receive fills with as many messages as the
// peer has sent, from which they are parsed in place.
//
// Invariants: memory is fixed; at most one receive is in flight; a message that has begun must be
// complete within message_timeout, so that a peer cannot hold a buffer by sending half of one; the
// data of one that took scarce memory within scarce_timeout.
// Thread rule: one reactor, and one coroutine at a time.
#pragma once

#include <memory>
#include <span>

#include "net/deadline.hpp"
#include "net/piece_checker.hpp"
#include "runtime/reactor.hpp"

namespace pf::net {

class Inbox {
  public:
    static constexpr size_t capacity_bytes = 128u << 10;
    // Of data received straight into place: worth a wake, and still in the cache for the checksum.
    static constexpr size_t wake_bytes = 128u << 10;
    static constexpr runtime::Nanos message_timeout = 30 * runtime::seconds;
    static constexpr runtime::Nanos scarce_timeout = 5 * runtime::seconds;

    Inbox(runtime::Reactor& reactor, runtime::Connection& connection)
        : reactor_(reactor), connection_(connection), deadline_(connection) {}

    // Takes the memory; not done before the peer has introduced itself.
    void open();
    // From now on every wait ends with `disconnected`, and no more memory of others is touched.
    void close() { closed_ = true; }

    [[nodiscard]] size_t buffered() const { return end_ - begin_; }
    [[nodiscard]] const std::byte* at() const { return memory_.get() + begin_; }
    // For all that is received from now on.
    void set_timeout(runtime::Nanos timeout) { timeout_ = timeout; }
    void consume(size_t bytes) {
        PF_ASSERT(bytes <= buffered());
        begin_ += bytes;
    }

    // Receives until `need` bytes are buffered. Between messages a peer may be silent for as long
    // as it likes; `inside_message` says that the deadline runs even though nothing is buffered.
    // Errors: disconnected, timed_out, and those of the connection.
    [[nodiscard]] runtime::Task<Status> fill(size_t need, bool inside_message);

    // Receives `length` bytes of data into `into` (which is at least that long), checking them:
    // what is buffered is copied, and what goes beyond copy_limit_bytes is received straight into
    // place.
    [[nodiscard]] runtime::Task<Status> receive_data(std::span<const iovec> into, uint32_t length,
                                                     PieceChecker& checker);
    // The same when all of it is buffered.
    void take_data(std::span<const iovec> into, uint32_t length, PieceChecker& checker);
    // Copies a table of CRCs that is buffered.
    void take_table(std::span<uint32_t> to) {
        std::memcpy(to.data(), at(), to.size_bytes());
        consume(to.size_bytes());
    }
    // Receives and forgets.
    [[nodiscard]] runtime::Task<Status> skip(uint32_t length);

  private:
    [[nodiscard]] Status check(const Result<size_t>& received) const;
    void start_deadline();
    [[nodiscard]] runtime::Task<Status> receive_direct(std::span<const iovec> into, size_t length,
                                                       PieceChecker& checker);

    runtime::Reactor& reactor_;
    runtime::Connection& connection_;
    Deadline deadline_;
    runtime::Nanos timeout_ = message_timeout;
    std::unique_ptr<std::byte[]> memory_;
    size_t begin_ = 0;
    size_t end_ = 0;
    bool closed_ = false;
};

}  // namespace pf::net
