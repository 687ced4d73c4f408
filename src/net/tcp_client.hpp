// ClientChannel over a byte stream.
//
// One coroutine receives completions, one sends what was issued in a turn as one batch. Both, and
// the handle that the user owns, share this object; it ends with the last of them, so a handle that
// is dropped (or a node that the simulator kills) leaves nothing dangling.
#pragma once

#include <vector>

#include "net/channel.hpp"
#include "net/inbox.hpp"
#include "net/send_batch.hpp"

namespace pf::net {

class TcpClient {
  public:
    using Shared = std::shared_ptr<TcpClient>;

    TcpClient(runtime::Reactor& reactor, std::unique_ptr<runtime::Connection> connection,
              const ClientOptions& options);

    [[nodiscard]] runtime::Task<Status> handshake(runtime::Nanos deadline);
    // Serves the connection until it is gone and everything was completed.
    [[nodiscard]] static runtime::Task<void> run(Shared self);

    void issue(Request& request, const Shared& self);
    void disconnect(Error why);
    // The user is gone: nothing is completed any more.
    void abandon();
    [[nodiscard]] static runtime::Task<void> wait_gone(Shared self);

    [[nodiscard]] bool connected() const { return !closing_; }
    [[nodiscard]] uint32_t in_flight() const { return in_flight_; }
    [[nodiscard]] const wire::HelloReply& hello() const { return hello_; }
    [[nodiscard]] const Error& failure() const { return failure_; }

  private:
    // A command_id is the slot's index and its generation, so that a late or repeated completion
    // never meets a later request in the same slot.
    static constexpr uint32_t index_bits = 10;
    static_assert(wire::max_depth == 1u << index_bits);
    static constexpr uint32_t no_slot = UINT32_MAX;
    struct Slot {
        Request* request = nullptr;
        uint32_t generation = 0;
        uint32_t next_free = no_slot;
    };

    [[nodiscard]] static runtime::Task<void> run_sender(Shared self);
    [[nodiscard]] static runtime::Task<void> drop_queued(Shared self);
    [[nodiscard]] runtime::Task<void> send_commands();
    [[nodiscard]] runtime::Task<Status> receive_completions();
    [[nodiscard]] runtime::Task<Status> receive_payload(Request& request,
                                                        const wire::Completion& completion);
    // The common case, without a coroutine: a read's data that is buffered whole.
    [[nodiscard]] bool take_buffered(Request& request, const wire::Completion& completion);
    void keep_result(Request& request, const PieceChecker& checker, uint32_t count);
    [[nodiscard]] Result<uint32_t> find_slot(const wire::Completion& completion) const;
    void gather();
    void add_to_batch(Request& request);
    void take_slot(Request& request);
    void free_slot(uint32_t index);
    void finish(Request& request, Errc outcome);
    void complete_all_disconnected();
    [[nodiscard]] bool can_send() { return !queued_.empty() && used_slots_ < credits_; }

    runtime::Reactor& reactor_;
    std::unique_ptr<runtime::Connection> connection_;
    ClientOptions options_;
    wire::HelloReply hello_;
    Inbox inbox_;
    SendBatch batch_;
    std::vector<Slot> slots_;
    uint32_t first_free_ = no_slot;
    uint32_t used_slots_ = 0;
    uint32_t credits_ = 0;
    uint32_t in_flight_ = 0;
    List<Request> queued_;  // not sent yet, for want of credits or of the end of the turn
    List<Request> flying_;  // sent, in the order of sending
    uint32_t crcs_[wire::blocks_touched(block_bytes - 1, wire::max_data_bytes)];
    runtime::WaitQueue wake_sender_;
    runtime::WaitQueue sender_ended_;
    runtime::Event gone_;
    Error failure_;
    bool sender_running_ = false;
    bool closing_ = false;
    bool dropping_ = false;
};

}  // namespace pf::net
