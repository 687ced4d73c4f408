#include "store/shard.hpp"

namespace pf::pfs {

using runtime::Task;
using wire::Opcode;

Shard::Shard(ShardContext& context, tray::Tray& tray, tray::ShardState state)
    : context_(context),
      tray_(tray),
      state_(state),
      next_sequence_(tray.last_position(state.shard).sequence + 1) {
    if (!tray.sessions(state.shard).empty()) evicts_from_ = context.reactor.now() + comeback_time;
}

Task<void> Shard::run(net::ServerChannel& channel, net::Incoming incoming) {
    switch (incoming.command.opcode) {
        case Opcode::read:
            return read(channel, std::move(incoming));
        case Opcode::write:
        case Opcode::discard:
        case Opcode::write_zeroes:
        case Opcode::compare_and_write:
            return mutate(channel, std::move(incoming));
        case Opcode::flush: {
            // Acked is durable: nothing is left to do.
            const Answer refused = check_state(incoming.command);
            return answer_at_once(channel, std::move(incoming), refused.value_or(Errc::ok));
        }
        case Opcode::ping:
            return answer_at_once(channel, std::move(incoming), Errc::ok);
        case Opcode::open_session:
            return open_session(channel, std::move(incoming));
        case Opcode::close_session:
            return close_session(channel, std::move(incoming));
        case Opcode::abort:
            return abort(channel, std::move(incoming));
        case Opcode::block_states:
            return block_states(channel, std::move(incoming));
        case Opcode::rpc:
            break;
    }
    return answer_at_once(channel, std::move(incoming), Errc::unsupported);
}

Task<void> Shard::answer_at_once(net::ServerChannel& channel, net::Incoming incoming, Errc status) {
    reply(channel, incoming, status, {}, 0);
    account(incoming, status);
    co_return;
}

Shard::Answer Shard::check_state(const wire::Command& command) const {
    if (retired_) return Errc::not_found;
    if (command.shard != state_.shard) return Errc::invalid_argument;
    if (tray_.failed()) return Errc::io_error;
    if (command.epoch != state_.epoch) return Errc::stale_epoch;
    if (state_.damaged) return Errc::data_lost;  // T7
    return {};
}

Shard::Answer Shard::check_range(const wire::Command& command, uint64_t limit_bytes) const {
    if (command.length == 0 || command.length > limit_bytes) return Errc::invalid_argument;
    if (command.offset % sector_bytes != 0 || command.length % sector_bytes != 0) {
        return Errc::invalid_argument;
    }
    if (command.offset > size_bytes() || command.length > size_bytes() - command.offset) {
        return Errc::out_of_range;
    }
    return {};
}

// Commands of a shard commit out of order where they do not overlap; everything up to the oldest
// one that is still on its way is committed.
uint64_t Shard::committed() const {
    const Mutation* oldest = const_cast<List<Mutation>&>(numbered_).front();
    return (oldest != nullptr ? oldest->record.position.sequence : next_sequence_) - 1;
}

void Shard::reply(net::ServerChannel& channel, const net::Incoming& incoming, Errc status,
                  net::Reply answer, runtime::Nanos media_ns) {
    wire::Completion& completion = answer.completion;
    const runtime::Nanos took = context_.reactor.now() - incoming.received_at;
    completion.status = static_cast<uint16_t>(status);
    completion.epoch = state_.epoch;
    completion.snap_seq = state_.snap_seq;
    completion.committed = committed();
    completion.store_us = static_cast<uint32_t>(took / runtime::microseconds);
    completion.media_us = static_cast<uint32_t>(media_ns / runtime::microseconds);
    channel.reply(incoming.command, std::move(answer));
}

void Shard::account(const net::Incoming& incoming, Errc status) {
    const auto opcode = static_cast<size_t>(incoming.command.opcode);
    context_.stats.latency[opcode].record(context_.reactor.now() - incoming.received_at);
    if (status != Errc::ok) ++context_.stats.errors[opcode];
}

Task<Status> Shard::apply(tray::ShardState state) {
    if (state.replica != state_.replica) {
        co_return fail(Errc::conflict, "the shard here belongs to another replica (R16)");
    }
    if (state.epoch < state_.epoch) co_return fail(Errc::stale_epoch);
    if (state.epoch == state_.epoch && state.writer_token < state_.writer_token) {
        co_return fail(Errc::stale_epoch, "an older writer token");
    }
    if (state.blocks < state_.blocks) {
        co_return fail(Errc::invalid_argument, "a shard never shrinks");
    }
    state.snap_seq = state_.snap_seq;  // generations have messages of their own
    state.damaged = state_.damaged;    // the tray keeps its own
    const bool same = state.epoch == state_.epoch && state.blocks == state_.blocks &&
                      state.writer_token == state_.writer_token;
    if (same) co_return Status{};  // told again
    changing_ = true;
    while (!numbered_.empty()) co_await drained_.wait();
    Status saved = co_await tray_.set_shard_state(state);
    if (saved) {
        // R8, R10: the names of the writers before stay, for their aborts still ask what was
        // applied; but nothing of theirs is written any more (R11), so they make room first.
        if (state.writer_token != state_.writer_token) {
            sessions_.forget_who_left();
            evicts_from_ = 0;
        }
        state.damaged = state_.damaged;  // as it is now: a loss may have been accepted meanwhile
        state_ = state;
        sessions_.remove_if([&](const Session& session) {
            const tray::RequestName any{session.id, UINT64_MAX, UINT64_MAX};
            return session.in_flight == 0 &&
                   tray_.request_state(state_.shard, any) == tray::RequestState::unknown_session;
        });
    }
    changing_ = false;
    changed_.wake_all();
    co_return saved;
}

// T7: the operator takes what is left. Durable before anything is served.
Task<Status> Shard::accept_loss() {
    Task<Status> accepting = tray_.accept_loss(state_.shard);
    const Status accepted = co_await accepting;
    if (accepted) state_.damaged = false;
    co_return accepted;
}

Task<Status> Shard::fence(uint64_t session) {
    sessions_.fence(session);  // from here on nothing of it is admitted or numbered
    while (true) {
        const Session* known = sessions_.find(session);
        if (known == nullptr || known->in_flight == 0) break;
        co_await drained_.wait();
    }
    sessions_.remove(session);
    const Status closed = co_await tray_.close_session(state_.shard, session);
    if (!closed && closed.error().code != Errc::unknown_session &&
        closed.error().code != Errc::not_found) {
        co_return closed;
    }
    co_return Status{};
}

Task<void> Shard::retire() {
    retired_ = true;
    Task<void> idle = running_.wait();
    co_await idle;
}

}  // namespace pf::pfs
