// One NBD connection from greeting to end: the handshake, then requests in, volume I/O, replies out
// in the order they finish.
//
// Bounds: `max_requests` requests under way; payload memory comes from the server's budgets and the
// reactor's pool, and a request that finds too little waits, which stops reading from its client.
// Durability: a write is answered when the volume completed it, and a completed write is durable,
// so FUA and flush have nothing to add.
//
// Thread rule: one reactor. Destroy it after run() has finished.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attach/nbd_budget.hpp"
#include "attach/nbd_job.hpp"
#include "attach/nbd_negotiation.hpp"
#include "attach/nbd_replies.hpp"
#include "attach/nbd_stream.hpp"
#include "base/units.hpp"

namespace pf::attach::nbd {

struct Export {
    std::string name;
    client::Volume* volume = nullptr;
    bool read_only = false;
};

struct SessionOptions {
    uint32_t max_requests = 256;
    runtime::Nanos handshake_timeout = 30 * runtime::seconds;
    // How long a client may leave a reply unread or a payload unfinished.
    runtime::Nanos stall_timeout = 120 * runtime::seconds;
};

class Session : public ListHook {
  public:
    // Larger payloads are cut at multiples of this, so that each piece is an atomic write.
    static constexpr uint32_t piece_bytes = max_atomic_write_bytes;
    static constexpr uint32_t max_pieces = max_payload_bytes / piece_bytes + 1;
    // The largest payload's charge on the budget: its first and last piece may be rounded up.
    static constexpr uint64_t max_charge_bytes = max_payload_bytes + uint64_t{2} * piece_bytes;

    Session(std::unique_ptr<runtime::Connection> connection, const std::vector<Export>& exports,
            SessionOptions options, Budgets& budgets);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // Returns when the connection is closed and none of its I/O is under way. The status says why
    // it ended; ok after a disconnect in order.
    [[nodiscard]] runtime::Task<Status> run();
    // Refuses further requests and ends the connection once those under way are answered.
    void stop();
    // Ends the connection now.
    void cut() { connection_->shut_down(); }

  private:
    [[nodiscard]] runtime::Task<Status> negotiate();
    [[nodiscard]] runtime::Task<Result<Verdict>> next_option(Negotiation& negotiation);
    [[nodiscard]] std::vector<ExportInfo> offered() const;
    [[nodiscard]] runtime::Task<Status> serve();
    [[nodiscard]] runtime::Task<void> drain();

    [[nodiscard]] ErrorNumber check(const Request& request) const;
    [[nodiscard]] ErrorNumber check_range(const Request& request) const;
    [[nodiscard]] runtime::Task<Job*> take_job();
    [[nodiscard]] runtime::Task<Status> start(Job& job);
    [[nodiscard]] runtime::Task<Status> start_transfer(Job& job);
    [[nodiscard]] runtime::Task<void> wait_for_budget(Account& account, uint64_t bytes);
    void start_simple(Job& job, client::IoKind kind);
    [[nodiscard]] runtime::Task<void> answer_block_status(Job& job);
    void encode_extents(Job& job, const std::vector<client::Extent>& extents);

    Piece& add_piece(Job& job, client::IoKind kind, uint64_t offset, uint64_t length);
    void submit(Piece& piece);
    static void piece_complete(client::Io& io);
    void piece_done(Job& job, Errc result);
    void finish(Job& job);
    void release(Job& job);

    std::unique_ptr<runtime::Connection> connection_;
    const std::vector<Export>& exports_;
    SessionOptions options_;
    Account small_;
    Account large_;
    Agreement agreement_;
    client::Volume* volume_ = nullptr;
    InputStream input_;
    StallTimer input_stall_;
    Replies replies_;
    Recycler<Piece> pieces_;
    Recycler<Job> jobs_;
    uint32_t jobs_under_way_ = 0;
    runtime::WaitQueue job_released_;
    bool serving_ = false;
    bool stopping_ = false;
};

}  // namespace pf::attach::nbd
