// One connection after its hello: the ServerChannel that handlers see.
//
// One coroutine receives commands and starts a handler for each, one sends the answers that were
// given in a turn as one batch. The session lives until its connection is gone and every command
// was answered. Sending never waits for receiving: a receive that waits for buffers cannot hold up
// the answers whose buffers it waits for.
//
// Memory: a peer that does not take its answers must not hold the buffers of the reactor, for which
// all others wait in line. A read is begun only while the unsent answers of its connection are at
// most a quarter of what those of all connections leave of the arena; else nothing more is taken
// from the peer until some were sent. So n such peers leave about 0.8^n of it, for 30 s at most.
// A connection that owes nothing may always begin one, or it would never get on.
#pragma once

#include <vector>

#include "net/channel.hpp"
#include "net/inbox.hpp"
#include "net/send_batch.hpp"

namespace pf::net {

class TcpSession final : public ServerChannel, public ListHook {
  public:
    using Shared = std::shared_ptr<TcpSession>;
    static constexpr runtime::Nanos send_timeout = 30 * runtime::seconds;

    TcpSession(runtime::Reactor& reactor, Handler& handler,
               std::unique_ptr<runtime::Connection> connection, const wire::Hello& hello);
    TcpSession(const TcpSession&) = delete;
    TcpSession& operator=(const TcpSession&) = delete;
    ~TcpSession() override { take_back(promised_bytes_); }

    // From the answer to the hello to the last answer.
    [[nodiscard]] static runtime::Task<void> run(Shared self);

    void reply(const wire::Command& command, Reply reply) override;
    [[nodiscard]] const wire::Hello& hello() const override { return hello_; }
    [[nodiscard]] const runtime::Address& peer() const override { return connection_->peer(); }
    void disconnect() override;

  private:
    // A reply on its way, from reply() until its send completed. Made once and used again: there
    // are at most 2 x depth, because a peer gets no more credits before it was sent the answer.
    struct Answer : ListHook {
        Reply reply;
        size_t promised = 0;
    };
    static constexpr size_t answers_per_slab = 16;

    [[nodiscard]] static runtime::Task<void> run_sender(Shared self);
    [[nodiscard]] runtime::Task<Status> handshake();
    [[nodiscard]] Status accept_hello(wire::HelloReply& reply);
    [[nodiscard]] runtime::Task<Status> receive_commands();
    [[nodiscard]] runtime::Task<Status> receive_payload(Incoming& incoming);
    // The common case, without a coroutine: a short payload that is buffered whole, and memory is
    // free.
    [[nodiscard]] bool take_buffered(Incoming& incoming);
    [[nodiscard]] runtime::Task<void> send_answers();
    void gather();
    void add_to_batch(const Reply& reply);
    void release(List<Answer>& answers);
    [[nodiscard]] bool may_promise(size_t bytes) const;
    void promise(size_t bytes);
    void take_back(size_t bytes);
    [[nodiscard]] Answer& take_answer();
    void report(const Error& error);

    runtime::Reactor& reactor_;
    Handler& handler_;
    std::unique_ptr<runtime::Connection> connection_;
    wire::Hello hello_;
    Inbox inbox_;
    std::unique_ptr<SendBatch> batch_;
    std::vector<std::unique_ptr<Answer[]>> slabs_;
    List<Answer> free_;
    List<Answer> queued_;
    List<Answer> sending_;
    runtime::WaitQueue wake_sender_;
    runtime::WaitQueue ended_;  // the sender, or the last command
    uint32_t depth_ = 0;
    uint32_t credits_used_ = 0;  // commands received whose answers were not handed to a send
    uint32_t unanswered_ = 0;
    size_t promised_bytes_ = 0;        // for answers that were not sent yet
    runtime::WaitQueue answers_sent_;  // or the connection ends
    uint8_t version_;
    bool accepted_ = false;
    bool sender_running_ = false;
    bool closing_ = false;
};

}  // namespace pf::net
