// Everything that is not the normal way: answers other than "ok", deadlines, the end of a handle.
#include "client/volume_core.hpp"

namespace pf::client {

void VolumeCore::on_trouble(Piece& piece) {
    if (piece.done) return settle(piece, piece.result);
    ShardLink& link = *piece.shard;
    switch (piece.outcome) {
        case Errc::ok:
            return on_refusal(piece, static_cast<Errc>(piece.completion.status));
        case Errc::disconnected:
            if (failed_ != Errc::ok && !undecided(piece)) return settle(piece, failed_);
            if (piece.expired && !piece.is_write) return settle(piece, Errc::timed_out);
            return serve(link);  // sent again once there is a connection
        case Errc::corrupt:
            if (piece.expired || piece.tries >= max_rereads) return settle(piece, Errc::corrupt);
            ++piece.tries;
            ++counters_.reread;
            return send_again(piece);
        default:
            return settle(piece, piece.outcome);
    }
}

void VolumeCore::send_again(Piece& piece) {
    ShardLink& link = *piece.shard;
    if (link.usable() && (!piece.is_write || link.session_open)) {
        issue(piece);
    } else {
        serve(link);
    }
}

void VolumeCore::on_refusal(Piece& piece, Errc status) {
    ShardLink& link = *piece.shard;
    switch (status) {
        case Errc::bad_payload:
            if (piece.command.payload_length == 0) return settle(piece, Errc::protocol);
            if (!piece.expired) return copy_and_resend(piece);
            if (!piece.abort_in_channel) serve(link);  // of an expired write the abort decides
            return;
        case Errc::stale_epoch:
        case Errc::not_primary:
        case Errc::unavailable:
        case Errc::busy:
            if (piece.expired && !piece.is_write) return settle(piece, Errc::timed_out);
            link.refresh_wanted = true;
            return serve(link);
        case Errc::fenced:
        case Errc::unknown_session:
            fail_handle(Errc::fenced);  // R8, R11: never under another name
            return settle(piece, Errc::fenced);
        case Errc::never_applied:
            return settle(piece, failed_ != Errc::ok ? failed_ : Errc::timed_out);
        default:
            return settle(piece, status);
    }
}

// T13: the memory changed between the checksum and the send (a guest's buffer cache does that). A
// copy that nobody else can change, summed in the same pass, ends it.
void VolumeCore::copy_and_resend(Piece& piece) {
    if (piece.tries >= max_payload_copies) return settle(piece, Errc::corrupt);
    ++piece.tries;
    ++counters_.copied;
    piece.wants_copy = !piece.memory;
    if (piece.wants_copy && !make_stable_copy(piece)) {
        wants_memory_ = true;
        return kick(runtime::milliseconds);
    }
    send_again(piece);
}

bool VolumeCore::make_stable_copy(Piece& piece) {
    const uint64_t halves = piece.command.opcode == wire::Opcode::compare_and_write ? 2 : 1;
    piece.memory = runtime::Reactor::current().buffers().try_allocate(halves * piece.length);
    if (!piece.memory) return false;
    const uint32_t blocks = wire::blocks_touched(piece.offset, piece.length);
    const std::span<uint32_t> crcs{piece.crc_values.data(), halves * blocks};
    const MutableBytes to = piece.memory.bytes();
    if (halves == 2) {
        const Io& io = *piece.io->io;
        copy_block_crcs(to.first(piece.length), io.expected, piece.offset, piece.length,
                        crcs.first(blocks));
        copy_block_crcs(to.last(piece.length), io.data, piece.offset, piece.length,
                        crcs.last(blocks));
    } else {
        copy_block_crcs(to, piece.data, piece.offset, piece.length, crcs);
    }
    piece.only_slice = {to.data(), to.size()};
    piece.data = {&piece.only_slice, 1};
    piece.wants_copy = false;
    return true;
}

// --- deadlines ---

void VolumeCore::watch_deadline(OpenIo& open) {
    open.deadline = reactor_.now() + options_.io_timeout;
    deadlines_.push_back(open.in_deadlines);
    if (!deadline_timer_.armed()) reactor_.timers().arm(deadline_timer_, open.deadline);
}

void VolumeCore::expire_due() {
    const runtime::Nanos now = reactor_.now();
    Link<OpenIo>* first = deadlines_.front();
    for (; first != nullptr && first->owner.deadline <= now; first = deadlines_.front()) {
        first->unlink();
        expire(first->owner);
    }
    // A callback that submitted again has armed it already, but for a deadline after this one.
    if (first != nullptr) reactor_.timers().arm(deadline_timer_, first->owner.deadline);
}

void VolumeCore::expire(OpenIo& open) {
    if (open.io->kind == IoKind::flush) {
        open.result = Errc::timed_out;
        return finish_io(open);
    }
    open.in_queue.unlink();
    if (open.cut_bytes < open.io->length) {
        open.cut_bytes = open.io->length;
        open.result = Errc::timed_out;
    }
    ++open.pieces;  // keeps it while its pieces end
    for (Piece& piece : pieces_) {
        if (piece.io == &open && !piece.done) expire(piece);
    }
    if (--open.pieces == 0) finish_io(open);
}

void VolumeCore::expire(Piece& piece) {
    ShardLink& link = *piece.shard;
    if (piece.expired) return;
    piece.expired = true;
    if (!piece.is_write) {
        if (!piece.in_channel) return settle(piece, Errc::timed_out);
        // The channel holds the user's memory; ending the connection takes it back. What else is in
        // flight there is sent again.
        link.drop_wanted = true;
        return serve(link);
    }
    ++expired_writes_;
    if (!piece.sent) return settle(piece, Errc::timed_out);
    ++counters_.aborted;
    if (link.usable() && link.session_open) {
        issue_abort(piece);
    } else {
        serve(link);
    }
}

// R10: asks the store to make sure that the write is applied already or never will be.
void VolumeCore::issue_abort(Piece& piece) {
    wire::Command& command = piece.abort.command;
    command = piece.command;
    command.opcode = wire::Opcode::abort;
    command.flags = wire::flag_none;
    command.epoch = piece.shard->epoch;
    command.shard = piece.shard->shard_id;
    const uint64_t lowest = piece.shard->writes.front()->owner.request_id();
    command.lowest_outstanding_delta = static_cast<uint32_t>(command.request_id - lowest);
    piece.abort_in_channel = true;
    piece.shard->channel->issue(piece.abort);
}

void VolumeCore::on_abort_complete(net::Request& request) {
    Piece& piece = static_cast<Piece::Abort&>(request).piece;
    VolumeCore& core = piece.core;
    piece.abort_in_channel = false;
    if (piece.done) return core.settle(piece, piece.result);
    if (request.outcome != Errc::ok) {
        if (core.failed_ != Errc::ok && !core.undecided(piece))
            return core.settle(piece, core.failed_);
        return core.serve(*piece.shard);
    }
    switch (static_cast<Errc>(request.completion.status)) {
        case Errc::ok:  // applied in time after all
            return core.settle(piece, Errc::ok);
        case Errc::never_applied:
            return core.settle(piece, core.failed_ != Errc::ok ? core.failed_ : Errc::timed_out);
        case Errc::fenced:
        case Errc::unknown_session:
            core.fail_handle(Errc::fenced);
            return core.settle(piece, Errc::fenced);
        default:  // not decided: ask again
            piece.shard->refresh_wanted = true;
            return core.serve(*piece.shard);
    }
}

bool VolumeCore::overlaps_expired(const OpenIo& open) const {
    const Io& io = *open.io;
    for (const Piece& piece : pieces_) {
        if (piece.io == nullptr || piece.io == &open || !piece.expired || !piece.is_write) continue;
        if (piece.offset < io.offset + io.length && io.offset < piece.offset + piece.length)
            return true;
    }
    return false;
}

void VolumeCore::release_held() {
    while (Link<OpenIo>* open = held_.pop_front()) to_cut_.push_back(*open);
}

// --- the end of a handle ---

// A fenced handle says so only after the stores confirmed that nothing of it is to come: whoever
// opens the volume again may write at once (R10). A volume that is gone, or is being closed without
// an answer, does not wait.
void VolumeCore::fail_handle(Errc code) {
    if (failed_ != Errc::ok) return;
    failed_ = code;
    undecided_until_ = reactor_.now() + (code == Errc::fenced ? close_patience : 0);
    kick();
}

// Its store is still to be asked for the fate of this write.
bool VolumeCore::undecided(const Piece& piece) const {
    return piece.is_write && piece.sent && !piece.done && reactor_.now() < undecided_until_;
}

void VolumeCore::fail_everything() {
    while (Io* io = waiting_.pop_front()) {
        io->result = failed_;
        if (--unfinished_ == 0 && closing_) close_pause_.end();
        io->complete(*io);
    }
    release_held();
    while (Link<OpenIo>* first = to_cut_.pop_front()) {
        OpenIo& open = first->owner;
        open.result = failed_;
        open.cut_bytes = open.io->length;
        if (open.pieces == 0) finish_io(open);
    }
    fail_pieces();
    const bool over = reactor_.now() >= undecided_until_;
    if (over || !links_dropped_) drop_links();
    if (!over && unfinished_ > 0) kick(undecided_until_ - reactor_.now());
}

void VolumeCore::fail_pieces() {
    for (Piece& piece : pieces_) {
        if (piece.io == nullptr) continue;
        const bool free = !piece.in_channel && !piece.abort_in_channel;
        if (undecided(piece)) {
            if (!piece.expired) ++expired_writes_;
            piece.expired = true;
            if (free) serve(*piece.shard);
        } else if (free) {
            settle(piece, failed_);
        }
    }
}

// Takes back what the channels hold. A write whose fate is open comes back to be aborted.
void VolumeCore::drop_links() {
    links_dropped_ = true;
    for (const auto& link : links_) {
        if (link == nullptr || link->channel == nullptr) continue;
        link->drop_wanted = true;
        serve(*link);
    }
}

// The store refuses the session at the door: nothing of it will be applied there any more.
void VolumeCore::fail_shard(ShardLink& link) {
    fail_handle(Errc::fenced);
    for (Piece& piece : pieces_) {
        if (piece.io != nullptr && piece.shard == &link && !piece.in_channel)
            settle(piece, Errc::fenced);
    }
}

// What must not happen inside submit(), or has to be tried again a little later.
void VolumeCore::kick(runtime::Nanos delay) {
    const runtime::Nanos when = reactor_.now() + delay;
    if (!kick_timer_.armed() || kick_timer_.deadline() > when)
        reactor_.timers().arm(kick_timer_, when);
}

void VolumeCore::on_kick() {
    if (failed_ != Errc::ok) fail_everything();
    uint32_t left = options_.depth;
    while (Link<OpenIo>* first = nothing_to_do_.front()) {
        if (left-- == 0) {
            kick();
            break;
        }
        finish_io(first->owner);
    }
    complete_flushes();
    if (wants_memory_) {
        wants_memory_ = false;
        for (const auto& link : links_) {
            if (link != nullptr && link->usable()) issue_pending(*link);
        }
        pump();
    }
}

}  // namespace pf::client
