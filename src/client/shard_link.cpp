// The way to a shard: one coroutine for each shard in use keeps it open. It locates the primary,
// connects, opens the session before the first write, and sends again what is in flight.
#include <fmt/format.h>

#include "client/volume_core.hpp"

namespace pf::client {

using runtime::Task;

namespace {
constexpr runtime::Nanos shortest_pause = 10 * runtime::milliseconds;
constexpr runtime::Nanos longest_pause = runtime::seconds;
constexpr runtime::Nanos locate_timeout = 5 * runtime::seconds;
constexpr runtime::Nanos close_session_timeout = runtime::seconds;
constexpr uint32_t shards_per_page = 1024;
}  // namespace

void VolumeCore::serve(ShardLink& link) {
    link.wake();
    if (link.running || stopping_) return;
    link.running = true;
    tasks_.add();
    reactor_.spawn(serve_link(&link));
}

Task<void> VolumeCore::serve_link(ShardLink* link) {
    while (!stopping_ && (link->wanted() || link->channel != nullptr)) co_await turn_link(link);
    if (link->session_open && link->usable()) co_await close_session(link);
    if (link->channel != nullptr) co_await drop(link);
    link->running = false;
    tasks_.done();
}

// One step towards an open way; at its end waits until something changed.
Task<void> VolumeCore::turn_link(ShardLink* link) {
    link->woken = false;
    if (link->channel != nullptr && (link->drop_wanted || !link->channel->connected())) {
        const bool parted = std::exchange(link->parting, false) && link->channel->connected();
        co_await drop(link);
        if (link->failures == 0 && !parted) link->failures = 1;
        co_return;
    }
    if (link->channel == nullptr) {
        if (link->failures > 0) co_await back_off(link);
        if (stopping_) co_return;
        Status opened = co_await connect(link);
        if (!opened) {
            ++link->failures;
            co_return;
        }
    } else if (link->refresh_wanted) {
        ++link->failures;
        co_await back_off(link);
        if (stopping_) co_return;
        const std::string before = link->address;
        // Without an answer what we know is tried again: the store may have caught up.
        Status located = co_await locate(link);
        link->refresh_wanted = false;
        if (located && link->address != before) {
            link->drop_wanted = true;
            co_return;
        }
    }
    if (!link->writes.empty() && !link->session_open) {
        Status opened = co_await open_session(link);
        if (!opened) {
            ++link->failures;
            co_return;
        }
    }
    if (link->usable()) issue_pending(*link);
    while (!link->woken) co_await link->wake_queue.wait();
}

Task<void> VolumeCore::back_off(ShardLink* link) {
    const runtime::Nanos duration =
        runtime::backoff(reactor_.rng(), link->failures - 1, shortest_pause, longest_pause);
    co_await link->pause.wait(duration);
}

// Asks the conductor. The first time a whole page is asked for, since neighbours will be needed.
Task<Status> VolumeCore::locate(ShardLink* link) {
    pureflash::v1::RpcRequest request;
    auto* list = request.mutable_list_shards();
    const bool first_time = link->address.empty();
    list->set_volume_id(info_.id);
    list->set_first_index(first_time ? link->index / shards_per_page * shards_per_page
                                     : link->index);
    list->set_count(first_time ? shards_per_page : 1);
    auto reply = co_await conductor_.call(std::move(request), locate_timeout);
    if (!reply) {
        // The conductor says that the volume is gone: nothing in flight can ever end well.
        if (reply.error().code == Errc::not_found) fail_handle(Errc::not_found);
        co_return std::unexpected(std::move(reply).error());
    }
    for (const auto& location : reply->list_shards().shards()) {
        if (location.shard().index() >= links_.size()) continue;
        ShardLink& found = link_of(location.shard().index());
        if (&found != link && !found.address.empty()) continue;
        found.shard_id = location.shard().id();
        found.epoch = location.shard().epoch();
        found.address = location.primary_address();
    }
    if (link->address.empty())
        co_return fail(Errc::unavailable, fmt::format("shard {} has no primary now", link->index));
    co_return Status{};
}

// What is known is tried first, so that a store that restarted is found again without a conductor.
Task<Status> VolumeCore::connect(ShardLink* link) {
    if (link->address.empty() || link->refresh_wanted) {
        Status located = co_await locate(link);
        if (!located && link->address.empty()) co_return located;
        link->refresh_wanted = false;
    }
    auto address = runtime::Address::parse(link->address);
    if (!address) co_return std::unexpected(std::move(address).error());
    make_room();
    net::ClientOptions options;
    options.depth = static_cast<uint16_t>(options_.depth);
    options.session = session_;
    options.shard = link->shard_id;
    auto channel = co_await net::ClientChannel::connect(*address, options);
    if (!channel) {
        if (channel.error().code == Errc::fenced) fail_shard(*link);
        link->refresh_wanted = true;
        co_return std::unexpected(std::move(channel).error());
    }
    link->channel = std::move(*channel);
    ++channels_;
    link->last_used = ++commands_;
    link->drop_wanted = false;
    if (link->ever_connected) ++counters_.reconnected;
    link->ever_connected = true;
    link->watching = true;
    reactor_.spawn(watch(link));
    co_return Status{};
}

// A volume has up to 16384 shards, and a store room for fewer connections than that. The session of
// a shard outlives its connection, so one that is idle may go.
void VolumeCore::make_room() {
    if (channels_ < options_.max_channels) return;
    ShardLink* idle = nullptr;
    for (const auto& link : links_) {
        if (link == nullptr || !link->usable() || link->wanted() || link->channel->in_flight() > 0)
            continue;
        if (idle == nullptr || link->last_used < idle->last_used) idle = link.get();
    }
    if (idle == nullptr) return;
    idle->parting = true;
    idle->drop_wanted = true;
    idle->wake();
}

Task<void> VolumeCore::watch(ShardLink* link) {
    co_await link->channel->wait_disconnected();
    link->watching = false;
    link->wake();
}

Task<void> VolumeCore::drop(ShardLink* link) {
    co_await link->channel->close();
    while (link->watching) co_await link->wake_queue.wait();
    link->channel.reset();
    --channels_;
    link->drop_wanted = false;
}

// Once for each shard, before its first write; the store makes it durable (R8). It is never opened
// again after a reconnect: a store that has lost it could apply a resend twice, so that ends the
// handle. A store that is alive and never answers is waited for only until a read needs the
// connection ended, or the volume is closed.
Task<Status> VolumeCore::open_session(ShardLink* link) {
    struct Opening : net::Request {
        explicit Opening(ShardLink& of) : link(of) {}
        ShardLink& link;
        bool done = false;
    };
    wire::SessionReply answer;
    iovec into{&answer, sizeof(answer)};
    Opening request(*link);
    request.command.opcode = wire::Opcode::open_session;
    request.command.shard = link->shard_id;
    request.command.epoch = link->epoch;
    request.command.writer_token = writer_token_;
    request.into = {&into, 1};
    request.complete = [](net::Request& ended) {
        auto& opening = static_cast<Opening&>(ended);
        opening.done = true;
        opening.link.wake();
    };
    link->channel->issue(request);
    while (!request.done && !link->drop_wanted && !stopping_) co_await link->wake_queue.wait();
    if (!request.done) co_await drop(link);
    if (request.outcome != Errc::ok) co_return fail(request.outcome);
    const auto status = static_cast<Errc>(request.completion.status);
    switch (status) {
        case Errc::ok:
            link->session_open = true;
            link->failures = 0;
            co_return Status{};
        case Errc::stale_epoch:
        case Errc::not_primary:
        case Errc::unavailable:
        case Errc::busy:
            link->refresh_wanted = true;
            break;
        case Errc::fenced:
        case Errc::unknown_session:
            fail_handle(Errc::fenced);
            break;
        default:
            fail_unsent_writes(*link, status);
            break;
    }
    co_return fail(status);
}

Task<void> VolumeCore::close_session(ShardLink* link) {
    struct Closing : net::Request {
        runtime::Pause pause;
        bool done = false;
    };
    Closing request;
    request.command.opcode = wire::Opcode::close_session;
    request.command.shard = link->shard_id;
    request.command.epoch = link->epoch;
    request.command.writer_token = writer_token_;
    request.complete = [](net::Request& ended) {
        auto& closing = static_cast<Closing&>(ended);
        closing.done = true;
        closing.pause.end();
    };
    link->channel->issue(request);
    co_await request.pause.wait(close_session_timeout);
    if (!request.done) co_await drop(link);
    link->session_open = false;
}

// Sends what is in flight and not with the channel, writes in the order of their names.
void VolumeCore::issue_pending(ShardLink& link) {
    for (Link<Piece>* at = link.writes.front(); at != nullptr && link.session_open;) {
        Piece& piece = at->owner;
        at = link.writes.next(*at);
        if (piece.in_channel || piece.abort_in_channel || piece.done) continue;
        if (piece.expired) {
            issue_abort(piece);
        } else if (piece.wants_copy && !make_stable_copy(piece)) {
            wants_memory_ = true;
            kick(runtime::milliseconds);
        } else {
            issue(piece);
        }
    }
    for (Link<Piece>* at = link.reads.front(); at != nullptr; at = link.reads.next(*at)) {
        if (!at->owner.in_channel) issue(at->owner);
    }
}

void VolumeCore::fail_unsent_writes(ShardLink& link, Errc code) {
    for (Piece& piece : pieces_) {
        if (piece.io != nullptr && piece.shard == &link && piece.is_write && !piece.sent)
            settle(piece, code);
    }
}

}  // namespace pf::client
