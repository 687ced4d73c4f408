#include "client/volume_core.hpp"

#include <algorithm>

namespace pf::client {

namespace {

constexpr uint32_t min_pieces = 16;  // a large I/O is worth some parallelism even at depth 1

bool changes_data(IoKind kind) {
    return kind != IoKind::read && kind != IoKind::block_states && kind != IoKind::flush;
}

bool has_data(IoKind kind) {
    return kind == IoKind::read || kind == IoKind::write || kind == IoKind::compare_and_write;
}

}  // namespace

VolumeCore::VolumeCore(ConductorLink& conductor, const ClusterOptions& options, OpenedVolume opened)
    : conductor_(conductor),
      options_(options),
      info_(std::move(opened.info)),
      session_(opened.session),
      writer_token_(opened.writer_token),
      handle_(opened.handle),
      reactor_(runtime::Reactor::current()),
      kick_timer_([](runtime::Timer& timer) { static_cast<VolumeTimer&>(timer).core.on_kick(); },
                  *this),
      deadline_timer_(
          [](runtime::Timer& timer) { static_cast<VolumeTimer&>(timer).core.expire_due(); },
          *this) {
    for (uint32_t i = 0; i < options_.depth; ++i)
        free_opens_.push_back(opens_.emplace_back().in_queue);
    for (uint32_t i = 0; i < std::max(options_.depth, min_pieces); ++i) {
        Piece& piece = pieces_.emplace_back(*this);
        piece.complete = &VolumeCore::on_complete;
        piece.abort.complete = &VolumeCore::on_abort_complete;
        free_pieces_.push_back(piece.in_shard);
    }
    links_.resize((info_.size_bytes + info_.shard_bytes - 1) / info_.shard_bytes);
    conductor_.add(*this);
}

Status VolumeCore::check(const Io& io) const {
    if (closing_) return fail(Errc::cancelled);
    if (failed_ != Errc::ok) return fail(failed_);
    if (io.kind == IoKind::flush) return {};
    if (info_.read_only && changes_data(io.kind)) return fail(Errc::read_only);
    if (io.length == 0 || io.length % sector_bytes != 0 || io.offset % sector_bytes != 0)
        return fail(Errc::invalid_argument);
    if (io.offset > info_.size_bytes || io.length > info_.size_bytes - io.offset)
        return fail(Errc::out_of_range);
    if (has_data(io.kind) && total_bytes(io.data) != io.length) return fail(Errc::invalid_argument);
    if (io.kind == IoKind::compare_and_write) {
        if (total_bytes(io.expected) != io.length || io.length > wire::max_compare_bytes ||
            io.offset % chunk_bytes + io.length > chunk_bytes)
            return fail(Errc::invalid_argument);
    }
    return {};
}

Status VolumeCore::submit(Io& io) {
    PF_TRY(check(io));
    ++unfinished_;
    if (free_opens_.empty() || !waiting_.empty()) {
        waiting_.push_back(io);
    } else {
        start(io);
    }
    return {};
}

void VolumeCore::start(Io& io) {
    OpenIo& open = free_opens_.pop_front()->owner;
    open.io = &io;
    open.cut_bytes = 0;
    open.cursor = {};
    open.pieces = 0;
    open.result = Errc::ok;
    if (options_.io_timeout != 0) watch_deadline(open);
    if (io.kind == IoKind::flush) {
        // Acked is durable: a flush only waits for the writes before it.
        writes_.push_back(open.in_writes);
        if (writes_.front() == &open.in_writes) kick();
        return;
    }
    if (changes_data(io.kind)) writes_.push_back(open.in_writes);
    if (!to_cut_.empty() || !cut(open)) {
        if (!open.in_queue.linked()) to_cut_.push_back(open.in_queue);
    }
}

// Hands out what was waiting for piece slots, memory or the request window.
void VolumeCore::pump() {
    if (pumping_) return;
    pumping_ = true;
    while (Link<OpenIo>* first = to_cut_.front()) {
        OpenIo& open = first->owner;
        if (cut(open)) {
            open.in_queue.unlink();
        } else if (to_cut_.front() == first) {
            break;
        }
    }
    while (!waiting_.empty() && !free_opens_.empty()) start(*waiting_.pop_front());
    pumping_ = false;
}

// False: not wholly cut, or moved to the list where it waits.
bool VolumeCore::cut(OpenIo& open) {
    if (expired_writes_ > 0 && changes_data(open.io->kind) && overlaps_expired(open)) {
        open.in_queue.unlink();
        held_.push_back(open.in_queue);
        return false;
    }
    while (open.cut_bytes < open.io->length) {
        if (!cut_one(open)) return false;
    }
    if (open.pieces > 0) return true;
    open.in_queue.unlink();
    nothing_to_do_.push_back(open.in_queue);
    kick();
    return false;
}

bool VolumeCore::cut_one(OpenIo& open) {
    if (free_pieces_.empty()) return false;
    const Io& io = *open.io;
    const uint64_t offset = io.offset + open.cut_bytes;
    const Cut part = first_piece(io.kind, offset, io.length - open.cut_bytes);
    if (part.nothing) {
        open.cut_bytes += part.length;
        return true;
    }
    ShardLink& link = link_of(static_cast<uint32_t>(offset / info_.shard_bytes));
    const bool is_write = changes_data(io.kind);
    if (is_write && !link.writes.empty()) {
        const uint64_t lowest = link.writes.front()->owner.request_id();
        if (link.next_request_id - lowest >= request_window) return false;
    }
    Piece& piece = free_pieces_.front()->owner;
    piece.offset = offset;
    piece.length = part.length;
    piece.is_write = is_write;
    piece.shard = &link;
    piece.io = &open;
    if (!prepare(piece, open, part)) {
        // What it got must not stay with a free piece: a write would take it for its stable copy.
        piece.memory = {};
        piece.slice_memory = {};
        piece.io = nullptr;
        wants_memory_ = true;
        kick(runtime::milliseconds);
        return false;
    }
    piece.in_shard.unlink();
    open.cut_bytes += part.length;
    ++open.pieces;
    place(piece);
    return true;
}

// Gives the piece its name and sends it, if the way to the shard is open.
void VolumeCore::place(Piece& piece) {
    ShardLink& link = *piece.shard;
    if (piece.is_write) {
        piece.command.request_id = link.next_request_id++;
        link.writes.push_back(piece.in_shard);
    } else {
        link.reads.push_back(piece.in_shard);
    }
    if (link.usable() && (!piece.is_write || link.session_open)) {
        issue(piece);
    } else {
        serve(link);
    }
}

void VolumeCore::issue(Piece& piece) {
    ShardLink& link = *piece.shard;
    wire::Command& command = piece.command;
    command.shard = link.shard_id;
    command.epoch = link.epoch;
    if (piece.is_write) {
        // R8: the store forgets what is below the lowest outstanding request.
        const uint64_t lowest = link.writes.front()->owner.request_id();
        command.lowest_outstanding_delta = static_cast<uint32_t>(command.request_id - lowest);
    }
    if (piece.sent) {
        if (piece.is_write) command.flags |= wire::flag_resent;
        ++counters_.resent;
    }
    piece.sent = true;
    piece.in_channel = true;
    link.last_used = ++commands_;
    link.channel->issue(piece);
}

void VolumeCore::on_complete(net::Request& request) {
    Piece& piece = static_cast<Piece&>(request);
    piece.in_channel = false;
    if (piece.outcome == Errc::ok && piece.completion.status == 0) {
        piece.shard->failures = 0;
        piece.core.settle(piece, Errc::ok);
    } else {
        piece.core.on_trouble(piece);
    }
}

// The piece's fate is known. It is finished once the channel holds none of its memory.
void VolumeCore::settle(Piece& piece, Errc result) {
    if (!piece.done) piece.result = result;
    piece.done = true;
    if (!piece.in_channel && !piece.abort_in_channel) finish_piece(piece);
}

void VolumeCore::finish_piece(Piece& piece) {
    OpenIo& open = *piece.io;
    if (open.io->kind == IoKind::block_states) {
        open.io->runs = std::move(piece.memory);
        open.io->received = piece.completion.length;
    }
    if (piece.result != Errc::ok && open.result == Errc::ok) open.result = piece.result;
    piece.in_shard.unlink();
    piece.memory = {};
    piece.slice_memory = {};
    piece.io = nullptr;
    const bool was_expired_write = piece.expired && piece.is_write;
    piece.expired = false;
    free_pieces_.push_front(piece.in_shard);
    if (was_expired_write) {
        --expired_writes_;
        release_held();
    }
    --open.pieces;
    if (open.result != Errc::ok) open.cut_bytes = open.io->length;  // the rest is not begun
    if (open.pieces == 0 && open.cut_bytes == open.io->length) {
        finish_io(open);
    } else {
        pump();
    }
}

void VolumeCore::finish_io(OpenIo& open) {
    Io& io = *open.io;
    io.result = open.result;
    open.io = nullptr;
    open.in_queue.unlink();
    open.in_writes.unlink();
    open.in_deadlines.unlink();
    free_opens_.push_front(open.in_queue);
    if (!to_cut_.empty() || !waiting_.empty()) pump();
    if (--unfinished_ == 0 && closing_) close_pause_.end();
    io.complete(io);
    complete_flushes();
}

void VolumeCore::complete_flushes() {
    if (completing_flushes_) return;
    completing_flushes_ = true;
    // A callback may submit the next one: the reactor gets a turn in between.
    uint32_t left = options_.depth;
    while (Link<OpenIo>* first = writes_.front()) {
        if (first->owner.io->kind != IoKind::flush) break;
        if (left-- == 0) {
            kick();
            break;
        }
        if (failed_ != Errc::ok) first->owner.result = failed_;
        finish_io(first->owner);
    }
    completing_flushes_ = false;
}

ShardLink& VolumeCore::link_of(uint32_t index) {
    std::unique_ptr<ShardLink>& link = links_[index];
    if (link == nullptr) link = std::make_unique<ShardLink>(index);
    return *link;
}

}  // namespace pf::client
