// The write path of a shard: admit, lock, prepare, number, write, commit, answer.
#include "base/log.hpp"
#include "base/planted.hpp"
#include "store/shard.hpp"

namespace pf::pfs {

using runtime::Task;
using wire::Opcode;

namespace {

tray::WriteKind kind_of(const wire::Command& command) {
    switch (command.opcode) {
        case Opcode::discard:
            return tray::WriteKind::unmap;
        case Opcode::write_zeroes:
            return (command.flags & wire::flag_no_hole) != 0 ? tray::WriteKind::zero
                                                             : tray::WriteKind::unmap;
        default:
            return tray::WriteKind::data;
    }
}

bool carries_data(Opcode opcode) {
    return opcode == Opcode::write || opcode == Opcode::compare_and_write;
}

constexpr uint32_t max_waits_for_room = 3;  // of a write, for checkpoints that give some back

uint64_t limit_of(Opcode opcode) {
    if (opcode == Opcode::write) return wire::max_data_bytes;
    if (opcode == Opcode::compare_and_write) return wire::max_compare_bytes;
    return chunk_bytes;
}

}  // namespace

Task<void> Shard::mutate(net::ServerChannel& channel, net::Incoming incoming) {
    running_.add();
    Mutation operation(channel.hello().session, incoming);
    // A copy of the same request that came on an older connection ends first (R8). Only then is the
    // tray asked: what it calls applied is not visible before its copy has committed.
    while (InFlight::Entry* twin =
               in_flight_.find(operation.name.session, operation.name.request)) {
        co_await in_flight_.wait(*twin);
    }
    Answer answer = admit(operation);
    const bool runs = !answer;
    if (runs) {
        begin(operation);
        co_await range_lock_.lock(operation.range);
        operation.locked_at = context_.reactor.now();
        if (operation.unaligned() || incoming.command.opcode == Opcode::compare_and_write) {
            Task<Answer> merged = prepare(operation);
            answer = co_await merged;
        }
        for (uint32_t waits = 0; !answer; ++waits) {
            while (changing_) co_await changed_.wait();
            answer = number(operation);
            if (!answer || answer != Errc::no_space || waits == max_waits_for_room) break;
            Task<bool> freeing = tray_.freed_room();
            if (co_await freeing) answer.reset();
        }
        if (!answer) {
            if (planted("ack_before_write")) reply(channel, incoming, Errc::ok, {}, 0);
            Task<Result<tray::Ticket>> writing =
                tray_.write(operation.record, operation.reservation);
            Result<tray::Ticket> written = co_await writing;
            answer = finish(operation, written);
        }
        range_lock_.unlock(operation.range);
        end(operation);
    }
    if (!planted("ack_before_write") || operation.submitted_at == 0) {
        reply(channel, incoming, *answer, {}, operation.durable_at - operation.submitted_at);
    }
    account_write(operation, *answer);
    running_.done();
}

// Everything that can be refused without waiting; looked at again in number().
Shard::Answer Shard::admit(const Mutation& operation) {
    const wire::Command& command = operation.command;
    if (const Answer refused = check_state(command)) return refused;
    if (const Answer refused = check_range(command, limit_of(command.opcode))) return refused;
    const uint64_t last = command.offset + command.length - 1;
    if (command.offset / chunk_bytes != last / chunk_bytes) return Errc::invalid_argument;
    // An unaligned zero range is written as data, in one record.
    if (operation.unaligned() && operation.block_count > tray::max_write_blocks) {
        return Errc::invalid_argument;
    }
    // S2: only the primary gives a write its generation.
    if (command.snap_seq != wire::head_generation) return Errc::invalid_argument;
    if (!operation.incoming.payload_ok && !planted("bad_payload_accepted")) {
        ++context_.stats.bad_payloads;
        return Errc::bad_payload;  // T13
    }
    if (const Answer refused = check_writer(operation.name.session, command)) return refused;
    return check_name(operation.name.session, command);
}

// R11: the writer token is part of the shard's state, so fencing needs no conductor.
Shard::Answer Shard::check_writer(uint64_t session, const wire::Command& command) const {
    if (session == 0) return Errc::unknown_session;
    if (command.writer_token < state_.writer_token) return Errc::fenced;
    if (command.writer_token > state_.writer_token) return Errc::unavailable;  // not told yet
    if (sessions_.fenced(session)) return Errc::fenced;
    return {};
}

tray::RequestName Shard::request_name(uint64_t session, const wire::Command& command) const {
    return {session, command.request_id, command.request_id - command.lowest_outstanding_delta};
}

// R8: requests have names; one that was applied is answered and not run again.
Shard::Answer Shard::check_name(uint64_t session, const wire::Command& command) {
    if (command.request_id == 0 || command.lowest_outstanding_delta >= command.request_id) {
        return Errc::invalid_argument;
    }
    if (command.lowest_outstanding_delta >= tray::Tray::max_requests_per_session) {
        return Errc::resource_exhausted;
    }
    const tray::RequestName name = request_name(session, command);
    const tray::RequestState known = tray_.request_state(state_.shard, name);
    if (known == tray::RequestState::unknown_session) return Errc::unknown_session;
    Session* entry = sessions_.find(session);
    if (entry == nullptr) entry = &sessions_.add(session);
    // The client has the answer already: a late copy from an old connection.
    if (command.request_id < entry->lowest_outstanding) return Errc::cancelled;
    if (name.lowest_outstanding > entry->lowest_outstanding) {
        entry->lowest_outstanding = name.lowest_outstanding;
    }
    if (planted("skip_dedup")) return {};
    if (known == tray::RequestState::voided) return Errc::never_applied;  // R10
    if (known == tray::RequestState::applied) {
        ++context_.stats.answered_resends;
        return Errc::ok;
    }
    return {};
}

void Shard::begin(Mutation& operation) {
    operation.started_at = context_.reactor.now();
    in_flight_.add(operation.name);
    ++sessions_.find(operation.name.session)->in_flight;
    tray::WriteRequest& record = operation.record;
    record.shard = state_.shard;
    record.request = request_name(operation.name.session, operation.command);
    record.kind = kind_of(operation.command);
    record.block = operation.first_block;
    record.count = operation.block_count;
    if (operation.command.opcode != Opcode::write) return;
    operation.whole = {operation.incoming.data.data(), size_t{operation.block_count} * block_bytes};
    record.data = {&operation.whole, 1};
    record.crcs = operation.incoming.crcs();
}

// The last checks and the number. From here on it can no longer be refused (R9). On its way to the
// log the tray may still let it wait, for blocks that are about to be free and for an old table, so
// the log is not in the order of numbers: writes that overlap are kept in it by the range lock
// (R6). Should that table be damaged, the write fails and its number stays unused.
Shard::Answer Shard::number(Mutation& operation) {
    if (const Answer refused = check_state(operation.command)) return refused;
    if (const Answer refused = check_writer(operation.name.session, operation.command)) {
        return refused;
    }
    tray::WriteRequest& record = operation.record;
    record.snap_seq = state_.snap_seq;  // S2
    Result<tray::Reservation> reserved =
        tray_.reserve(record.shard, record.snap_seq, record.block, record.count, record.kind);
    if (!reserved) return reserved.error().code;
    operation.reservation = std::move(*reserved);
    record.position = {state_.epoch, next_sequence_++};
    numbered_.push_back(operation);
    operation.submitted_at = context_.reactor.now();
    return {};
}

// Durable on the only in-sync replica: visible first, then acked.
Errc Shard::finish(Mutation& operation, Result<tray::Ticket>& written) {
    operation.durable_at = context_.reactor.now();
    static_cast<ListHook&>(operation).unlink();
    if (!written) return written.error().code;
    tray_.commit(*written);
    return Errc::ok;
}

void Shard::end(Mutation& operation) {
    if (operation.scratch) {
        ScratchPool& pool = operation.command.opcode == Opcode::compare_and_write
                                ? context_.scratch.compares
                                : context_.scratch.edges;
        pool.give_back(std::move(operation.scratch));
    }
    if (Session* session = sessions_.find(operation.name.session)) --session->in_flight;
    in_flight_.remove(operation.name);
    drained_.wake_all();
}

void Shard::account_write(const Mutation& operation, Errc status) {
    account(operation.incoming, status);
    const runtime::Nanos now = context_.reactor.now();
    const runtime::Nanos took = now - operation.incoming.received_at;
    if (status == Errc::ok) {
        ++load_.writes;
        load_.write_us += took / runtime::microseconds;
        if (carries_data(operation.command.opcode)) {
            load_.write_bytes += operation.command.length;
            context_.stats.written_bytes += operation.command.length;
        }
    }
    if (took < context_.slow_io) return;
    ++context_.stats.slow_operations;
    const auto ms = [](runtime::Nanos from, runtime::Nanos to) {
        return from == 0 || to < from ? 0 : (to - from) / runtime::milliseconds;
    };
    log_warning(
        "slow write: shard {:#x} offset {} length {} took {} ms: queue {}, lock {}, old blocks {}, "
        "media {} ({})",
        state_.shard, operation.command.offset, operation.command.length,
        took / runtime::milliseconds, ms(operation.incoming.received_at, operation.started_at),
        ms(operation.started_at, operation.locked_at),
        ms(operation.locked_at, operation.submitted_at),
        ms(operation.submitted_at, operation.durable_at), describe(status));
}

}  // namespace pf::pfs
