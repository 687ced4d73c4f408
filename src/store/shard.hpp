// The primary of one shard, on the reactor that owns its tray.
//
// A write is checked for everything that can fail (R9), waits for its block range, is numbered
// (epoch, sequence), written, committed and answered, in that order; its set of replicas is this
// one alone, so durable here is durable everywhere. Reads take no lock: the tray shows committed
// blocks only.
//
// R1 and a restart: with several replicas a restarted one must wait for a new epoch, because
// another may have taken over. A set of one has nobody who could (R3): its shard goes on in the
// epoch that its tray remembers, without asking the conductor, so the data path outlives the
// control plane. Sequences it had numbered but not made durable were seen by nobody and are used
// again.
//
// Failure: a shard that may have lost writes (T7) answers data_lost to everything but an abort,
// until an operator accepts that. A tray that failed answers io_error to everything; the outcome of
// writes in flight then is unknown until the tray is mounted again.
//
// Thread rule: one reactor. Bounded: by the credits of its connections. Destroy after retire().
#pragma once

#include "runtime/sync.hpp"
#include "store/mutation.hpp"
#include "store/scratch.hpp"
#include "store/sessions.hpp"
#include "store/stats.hpp"

namespace pf::pfs {

// What all shards of a reactor share.
struct ShardContext {
    runtime::Reactor& reactor;
    Scratch& scratch;
    StoreStats& stats;
    runtime::Nanos slow_io = 2 * runtime::seconds;
    runtime::Nanos next_full_warning = 0;  // of a shard whose sessions are all in use
};

class Shard {
  public:
    Shard(ShardContext& context, tray::Tray& tray, tray::ShardState state);
    Shard(const Shard&) = delete;
    Shard& operator=(const Shard&) = delete;

    [[nodiscard]] const tray::ShardState& state() const { return state_; }
    [[nodiscard]] tray::Tray& tray() const { return tray_; }
    [[nodiscard]] bool fenced(uint64_t session) const { return sessions_.fenced(session); }
    // A connection of this session begins or ends.
    void attach(uint64_t session) { sessions_.attach(session); }
    void detach(uint64_t session) { sessions_.detach(session); }
    [[nodiscard]] ShardLoad take_load() { return std::exchange(load_, {}); }

    // Runs one command of a connection that named this shard, and answers it.
    [[nodiscard]] runtime::Task<void> run(net::ServerChannel& channel, net::Incoming incoming);

    // --- control; one at a time (the caller holds the store's control lock), but for fence() ---

    // Durable on completion: epoch, writer token and size. Returns when no write of the old state
    // is left, so who was told the new token sees every older write (R11).
    [[nodiscard]] runtime::Task<Status> apply(tray::ShardState state);
    // Returns when nothing of the session runs or ever will (R10). May run beside any of these, and
    // beside itself: an open_session that needs a place fences too.
    [[nodiscard]] runtime::Task<Status> fence(uint64_t session);
    // T7. Durable on completion.
    [[nodiscard]] runtime::Task<Status> accept_loss();
    // Refuses every command from now on and waits for those that run.
    [[nodiscard]] runtime::Task<void> retire();

  private:
    // Commands (shard_read.cpp, shard_write.cpp, shard_session.cpp).
    [[nodiscard]] runtime::Task<void> read(net::ServerChannel& channel, net::Incoming incoming);
    [[nodiscard]] runtime::Task<void> block_states(net::ServerChannel& channel,
                                                   net::Incoming incoming);
    [[nodiscard]] runtime::Task<void> mutate(net::ServerChannel& channel, net::Incoming incoming);
    [[nodiscard]] runtime::Task<void> open_session(net::ServerChannel& channel,
                                                   net::Incoming incoming);
    [[nodiscard]] runtime::Task<void> close_session(net::ServerChannel& channel,
                                                    net::Incoming incoming);
    [[nodiscard]] runtime::Task<void> abort(net::ServerChannel& channel, net::Incoming incoming);
    [[nodiscard]] runtime::Task<Errc> void_request(uint64_t session, const wire::Command& command);
    [[nodiscard]] runtime::Task<void> answer_at_once(net::ServerChannel& channel,
                                                     net::Incoming incoming, Errc status);

    // One at a time (opening_); of the control calls only fence() comes from here.
    [[nodiscard]] runtime::Task<Status> register_session(uint64_t session);
    [[nodiscard]] runtime::Task<Status> evict_session();
    void warn_of_full_sessions();
    // Each gives the answer, or nothing when the command may go on.
    using Answer = std::optional<Errc>;
    [[nodiscard]] Answer check_state(const wire::Command& command) const;
    [[nodiscard]] Answer check_range(const wire::Command& command, uint64_t limit_bytes) const;
    [[nodiscard]] Answer check_writer(uint64_t session, const wire::Command& command) const;
    [[nodiscard]] Answer check_name(uint64_t session, const wire::Command& command);
    [[nodiscard]] Answer admit(const Mutation& operation);
    [[nodiscard]] Answer number(Mutation& operation);
    [[nodiscard]] Errc finish(Mutation& operation, Result<tray::Ticket>& written);
    void begin(Mutation& operation);
    void end(Mutation& operation);

    // T14 (merge.cpp): makes whole blocks of a command that does not cover them.
    [[nodiscard]] runtime::Task<Answer> prepare(Mutation& operation);
    [[nodiscard]] runtime::Task<Answer> merge_write(Mutation& operation);
    [[nodiscard]] runtime::Task<Answer> merge_zeroes(Mutation& operation);
    [[nodiscard]] runtime::Task<Answer> compare(Mutation& operation);
    [[nodiscard]] runtime::Task<Errc> read_old(uint32_t block, uint32_t count, MutableBytes to,
                                               std::span<uint32_t> crcs);
    [[nodiscard]] runtime::Task<Errc> read_edges(Mutation& operation);

    [[nodiscard]] tray::RequestName request_name(uint64_t session,
                                                 const wire::Command& command) const;
    [[nodiscard]] uint64_t size_bytes() const { return uint64_t{state_.blocks} * block_bytes; }
    [[nodiscard]] uint64_t committed() const;
    void reply(net::ServerChannel& channel, const net::Incoming& incoming, Errc status,
               net::Reply answer, runtime::Nanos media_ns);
    void account(const net::Incoming& incoming, Errc status);
    void account_write(const Mutation& operation, Errc status);

    ShardContext& context_;
    tray::Tray& tray_;
    tray::ShardState state_;
    uint64_t next_sequence_;
    bool retired_ = false;
    bool changing_ = false;  // apply() runs: nothing is numbered until it is done
    runtime::WaitQueue changed_;
    runtime::WaitGroup running_;
    runtime::WaitQueue drained_;  // some mutation ended
    List<Mutation> numbered_;
    RangeLock range_lock_;
    InFlight in_flight_;
    // Clients that live are back this long after a start, at the latest.
    static constexpr runtime::Nanos comeback_time = 30 * runtime::seconds;
    Sessions sessions_;
    runtime::Mutex opening_;
    runtime::Nanos evicts_from_ = 0;
    ShardLoad load_;
};

}  // namespace pf::pfs
