// Sessions and aborts of a shard (R8, R10).
#include "base/log.hpp"
#include "base/units.hpp"
#include "store/shard.hpp"

namespace pf::pfs {

using runtime::Task;

// Durable on the answer: from then on the session's requests have names that survive a restart.
Task<void> Shard::open_session(net::ServerChannel& channel, net::Incoming incoming) {
    running_.add();
    const uint64_t session = channel.hello().session;
    net::Reply answer;
    Answer refused = check_state(incoming.command);
    if (!refused) refused = check_writer(session, incoming.command);
    Errc status = refused.value_or(Errc::ok);
    if (status == Errc::ok) {
        Task<Status> opening = register_session(session);
        const Status opened = co_await opening;
        status = opened ? Errc::ok : opened.error().code;
        // The token may have been replaced while the session was made durable.
        if (status == Errc::ok) {
            status = check_writer(session, incoming.command).value_or(Errc::ok);
        }
    }
    if (status == Errc::ok) {
        wire::SessionReply opened;
        opened.blocks = state_.blocks;
        opened.epoch = state_.epoch;
        opened.snap_seq = state_.snap_seq;
        answer.data = co_await context_.reactor.buffers().allocate(sizeof(opened));
        pf::store(answer.data.bytes(), opened);
        answer.data_length = sizeof(opened);
    }
    reply(channel, incoming, status, std::move(answer), 0);
    account(incoming, status);
    running_.done();
}

// Clients that died never close their session. When the shard's table or the tray is full, one that
// nobody is connected with is fenced: should its client come back, its handle ends (R10), and it
// never opens the session again. One opening at a time, so that the place made for one is not taken
// by another.
Task<Status> Shard::register_session(uint64_t session) {
    Task<void> locking = opening_.lock();
    co_await locking;
    Task<Status> opening = tray_.open_session(state_.shard, session);
    Status opened = co_await opening;
    const bool full = !opened && opened.error().code == Errc::no_space;
    if (full || (!opened && opened.error().code == Errc::resource_exhausted)) {
        Task<Status> evicting = evict_session();
        Status evicted = co_await evicting;
        if (evicted) {
            Task<Status> again = tray_.open_session(state_.shard, session);
            opened = co_await again;
        } else if (!full || evicted.error().code == Errc::busy) {
            if (evicted.error().code == Errc::resource_exhausted) warn_of_full_sessions();
            opened = std::move(evicted);
        }
    }
    opening_.unlock();
    co_return opened;
}

// Not soon after the start: then clients that live are not back yet, and the one that has worked
// for longest would look as dead as any. Who opens is told to come again.
Task<Status> Shard::evict_session() {
    const std::optional<uint64_t> gone = sessions_.longest_gone(tray_.sessions(state_.shard));
    if (!gone) co_return fail(Errc::resource_exhausted, "every session of the shard is in use");
    if (context_.reactor.now() < evicts_from_) co_return fail(Errc::busy);
    Task<Status> fencing = fence(*gone);
    const Status fenced = co_await fencing;
    co_return fenced;
}

// Whoever tries again and again must not fill the log: once a minute for all shards of a reactor.
void Shard::warn_of_full_sessions() {
    const runtime::Nanos now = context_.reactor.now();
    if (now < context_.next_full_warning) return;
    context_.next_full_warning = now + 60 * runtime::seconds;
    log_warning("shard {} of volume {} refuses a writer: its {} sessions are all in use",
                state_.shard & ((1U << shard_index_bits) - 1), state_.shard >> shard_index_bits,
                tray::Tray::max_sessions_per_shard);
}

// The client has the answer of every request: nothing has to be remembered.
Task<void> Shard::close_session(net::ServerChannel& channel, net::Incoming incoming) {
    running_.add();
    const uint64_t session = channel.hello().session;
    Errc status = check_state(incoming.command).value_or(Errc::ok);
    const Session* known = sessions_.find(session);
    if (status == Errc::ok && known != nullptr && known->in_flight > 0) status = Errc::busy;
    if (status == Errc::ok) {
        sessions_.remove(session);
        Task<Status> closing = tray_.close_session(state_.shard, session);
        const Status closed = co_await closing;
        status = closed ? Errc::ok : closed.error().code;
        if (status == Errc::unknown_session) status = Errc::ok;
    }
    reply(channel, incoming, status, {}, 0);
    account(incoming, status);
    running_.done();
}

// R10: answers ok if the request was applied, never_applied if it never will be, and fenced if its
// session was ended, which leaves nothing to come either. The abort stands
// in the in-flight table under the name of the request, so that a late copy of it waits and then
// finds it voided.
Task<void> Shard::abort(net::ServerChannel& channel, net::Incoming incoming) {
    running_.add();
    const uint64_t session = channel.hello().session;
    const wire::Command& command = incoming.command;
    Answer answer = check_state(command);
    // An older epoch, a replaced token or a loss is no reason to leave the client in doubt.
    if (answer == Errc::stale_epoch || answer == Errc::data_lost) answer.reset();
    if (!answer && (session == 0 || command.request_id == 0)) answer = Errc::invalid_argument;
    while (!answer) {
        InFlight::Entry* running = in_flight_.find(session, command.request_id);
        if (running == nullptr) break;
        co_await in_flight_.wait(*running);
    }
    if (!answer) {
        InFlight::Entry self(session, command.request_id);
        in_flight_.add(self);
        Task<Errc> voiding = void_request(session, command);
        answer = co_await voiding;
        in_flight_.remove(self);
    }
    reply(channel, incoming, *answer, {}, 0);
    account(incoming, *answer);
    running_.done();
}

Task<Errc> Shard::void_request(uint64_t session, const wire::Command& command) {
    const tray::RequestName name = request_name(session, command);
    const tray::RequestState known = tray_.request_state(state_.shard, name);
    if (known == tray::RequestState::applied) co_return Errc::ok;
    if (known == tray::RequestState::voided) co_return Errc::never_applied;
    // Decided too: whether it was applied or not, no more of it will be.
    if (sessions_.fenced(session)) co_return Errc::fenced;
    // Evicted or never opened: what it did is not known, and nothing more of it will be applied.
    if (known == tray::RequestState::unknown_session) co_return Errc::unknown_session;
    Task<Status> voiding = tray_.void_request(state_.shard, name);
    const Status voided = co_await voiding;
    if (!voided) co_return voided.error().code;
    ++context_.stats.voided_requests;
    co_return Errc::never_applied;
}

}  // namespace pf::pfs
