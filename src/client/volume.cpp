// What an open volume asks of the conductor and of many shards at once: states, size, closing.
#include "client/volume.hpp"

#include <algorithm>

#include "client/volume_core.hpp"

namespace pf::client {

using runtime::Task;

namespace {

constexpr runtime::Nanos close_rpc_timeout = 2 * runtime::seconds;
constexpr uint64_t max_states_bytes = uint64_t{1} << 30;  // asked for in one command

class IoAwaiter {
  public:
    IoAwaiter(Volume& volume, Io& io) : volume_(volume), io_(io) {}
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<> waiter) {
        waiter_ = waiter;
        io_.user = this;
        io_.complete = [](Io& io) { runtime::schedule(static_cast<IoAwaiter*>(io.user)->waiter_); };
        submitted_ = volume_.submit(io_);
        return submitted_.has_value();
    }
    Status await_resume() {
        if (!submitted_) return std::move(submitted_);
        if (io_.result != Errc::ok) return fail(io_.result);
        return {};
    }

  private:
    Volume& volume_;
    Io& io_;
    std::coroutine_handle<> waiter_;
    Status submitted_;
};

// Appends a run that covers [begin, end), cut to the range asked for.
void append(std::vector<Extent>& extents, uint64_t length, uint32_t state) {
    if (length == 0) return;
    if (!extents.empty() && extents.back().state == state) {
        extents.back().length_bytes += length;
    } else {
        extents.push_back({length, state});
    }
}

}  // namespace

Task<Status> Volume::run(Io& io) {
    IoAwaiter awaiter(*this, io);
    co_return co_await awaiter;
}

VolumeInfo info_of(const pureflash::v1::Volume& volume) {
    VolumeInfo info;
    info.id = volume.id();
    info.name = volume.name();
    info.size_bytes = volume.size_bytes();
    info.shard_bytes = volume.shard_bytes();
    info.replicas = volume.replicas();
    return info;
}

Task<Result<std::vector<Extent>>> VolumeCore::block_states(uint64_t offset, uint64_t length,
                                                           uint32_t limit) {
    if (length == 0 || offset > info_.size_bytes || length > info_.size_bytes - offset)
        co_return fail(Errc::out_of_range);
    std::vector<Extent> extents;
    uint64_t at = offset;
    const uint64_t end = offset + length;
    // One more than asked for, so that the last one is whole.
    while (at < end && extents.size() <= limit) {
        const uint64_t shard_end = round_down(at, info_.shard_bytes) + info_.shard_bytes;
        Io io;
        io.kind = IoKind::block_states;
        io.offset = round_down(at, block_bytes);
        io.length =
            std::min({round_up(end, block_bytes), shard_end, io.offset + max_states_bytes}) -
            io.offset;
        Status done = co_await run(io);
        if (!done) co_return std::unexpected(std::move(done).error());
        const size_t runs = io.received / sizeof(wire::BlockRun);
        uint64_t position = io.offset;
        for (size_t i = 0; i < runs && position < end; ++i) {
            const auto found = load<wire::BlockRun>(io.runs.bytes(), i * sizeof(wire::BlockRun));
            const uint64_t run_end =
                std::min(position + uint64_t{found.blocks} * block_bytes, io.offset + io.length);
            append(extents, std::min(run_end, end) - std::min(std::max(position, at), run_end),
                   found.state);
            position = run_end;
        }
        if (position <= at) co_return fail(Errc::protocol, "block states that cover nothing");
        at = std::min(position, end);
    }
    if (extents.size() > limit) extents.resize(limit);
    co_return extents;
}

Task<Status> VolumeCore::refresh() {
    pureflash::v1::RpcRequest request;
    request.mutable_stat_volume()->set_id(info_.id);
    auto reply = co_await conductor_.call(std::move(request));
    if (!reply) co_return std::unexpected(std::move(reply).error());
    const VolumeInfo now = info_of(reply->stat_volume().volume());
    if (now.id != info_.id || now.shard_bytes != info_.shard_bytes ||
        now.size_bytes < info_.size_bytes)
        co_return fail(Errc::protocol, "the conductor describes another volume");
    info_.name = now.name;
    info_.size_bytes = now.size_bytes;
    links_.resize((info_.size_bytes + info_.shard_bytes - 1) / info_.shard_bytes);
    co_return Status{};
}

// The conductor's handle ended with its connection. A new one keeps the volume counted as open; it
// is a reader's, since our session and writer token stay what they are.
Task<void> VolumeCore::announce() {
    if (closing_) co_return;
    tasks_.add();
    pureflash::v1::RpcRequest stat;
    stat.mutable_stat_volume()->set_id(info_.id);
    auto known = co_await conductor_.call(std::move(stat));
    if (known) {
        pureflash::v1::RpcRequest open;
        open.mutable_open_volume()->set_name(known->stat_volume().volume().name());
        open.mutable_open_volume()->set_read_only(true);
        open.mutable_open_volume()->set_client(options_.client_name);
        auto opened = co_await conductor_.call(std::move(open));
        if (opened) handle_ = opened->open_volume().handle();
    }
    tasks_.done();
}

Task<Status> VolumeCore::close() {
    closing_ = true;
    if (unfinished_ > 0) co_await close_pause_.wait(close_patience);
    // R10: what has no answer by now ends the handle with it; nothing is sent under its name again.
    if (unfinished_ > 0) {
        fail_handle(Errc::cancelled);
        undecided_until_ = reactor_.now();
        kick();
    }
    while (unfinished_ > 0) co_await runtime::sleep_for(runtime::milliseconds);
    stopping_ = true;
    for (const auto& link : links_) {
        if (link == nullptr) continue;
        link->pause.end();
        link->wake();
    }
    Handle::unlink();
    co_await tasks_.wait();
    kick_timer_.disarm();
    deadline_timer_.disarm();
    pureflash::v1::RpcRequest request;
    request.mutable_close_volume()->set_handle(handle_);
    // If this does not arrive, the handle ends with the connection.
    (void)co_await conductor_.call(std::move(request), close_rpc_timeout);
    co_return Status{};
}

}  // namespace pf::client
