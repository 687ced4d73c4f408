#include "sim_client.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace pf::test {

using client::Io;
using client::IoKind;
using runtime::Task;

namespace {

// Memory of an I/O in pieces of `piece` bytes.
std::vector<iovec> vectors_of(std::vector<std::byte>& bytes, size_t piece) {
    std::vector<iovec> vectors;
    for (size_t at = 0; at < bytes.size(); at += vectors.back().iov_len)
        vectors.push_back({bytes.data() + at, std::min(piece, bytes.size() - at)});
    return vectors;
}

}  // namespace

uint64_t IoTally::total() const {
    return std::accumulate(done.begin(), done.end(), uint64_t{0});
}

SimClient::SimClient(SimCluster& cluster, Oracle& oracle, IoTally& tally, const std::string& name,
                     ClientPlan plan)
    : cluster_(cluster),
      oracle_(oracle),
      tally_(tally),
      plan_(plan),
      node_(cluster.add_client(name)) {}

void SimClient::start() {
    finished_ = false;
    node_.start([this](runtime::sim::SimReactor& reactor) -> std::shared_ptr<void> {
        auto process = std::make_shared<Process>();
        process_ = process;
        ++lives_;
        reactor.spawn(live(process));
        return process;
    });
}

void SimClient::kill() {
    node_.kill();
    for (const OpId id : outstanding_) oracle_.abandon(id);
    outstanding_.clear();
}

Task<void> SimClient::live(std::shared_ptr<Process> process) {
    co_await open(*process);
    if (plan_.work) {
        process->workers.add(plan_.workers * process->volumes.size());
        for (uint32_t v = 0; v < process->volumes.size(); ++v) {
            for (uint32_t i = 0; i < plan_.workers; ++i) {
                const Target target{process->volumes[v].get(), v};
                const uint64_t seed = (plan_.seed << 20) + (lives_ << 10) + uint64_t{v} * 64 + i;
                runtime::Reactor::current().spawn(worker(*process, target, seed));
            }
        }
        co_await process->workers.wait();
    } else {
        co_await check_all();
    }
    for (auto& volume : process->volumes) {
        const Status closed = co_await volume->close();
        if (!closed) tally_.unexpected = "close: " + closed.error().text();
    }
    co_await process->cluster->close();
    finished_ = true;
}

Task<void> SimClient::open(Process& process) {
    auto made = client::Cluster::create(SimCluster::client_options(plan_.io_timeout, 16));
    PF_ASSERT(made.has_value());
    process.cluster = std::move(*made);
    for (uint32_t i = 0; i < cluster_.shape().volumes; ++i) {
        while (process.volumes.size() == i) {
            std::string name = volume_name(i);
            auto opened = co_await process.cluster->open(std::move(name), false, false);
            if (opened) {
                process.volumes.push_back(std::move(*opened));
            } else {
                co_await runtime::sleep_for(50 * runtime::milliseconds);
            }
        }
    }
}

Task<void> SimClient::worker(Process& process, Target target, uint64_t seed) {
    Rng rng(seed);
    while (!stopping_ && tally_.unexpected.empty()) {
        co_await step(target, rng);
        const uint64_t pause_us = rng.below(8) == 0 ? rng.below(20'000) : rng.below(400);
        co_await runtime::sleep_for(pause_us * runtime::microseconds);
    }
    process.workers.done();
}

// Most I/O falls on a few blocks around the first shard border, where it collides.
uint64_t SimClient::pick_range(Rng& rng, uint64_t& length) const {
    const ClusterShape& shape = cluster_.shape();
    const uint64_t size = rng.below(100);
    uint64_t limit = block_bytes;
    if (size >= 50) limit = uint64_t{32} << 10;
    if (size >= 90) limit = uint64_t{1} << 20;
    length = (1 + rng.below(limit / sector_bytes)) * sector_bytes;
    if (rng.below(3) == 0) length = round_up(length, block_bytes);
    uint64_t first = 0;
    uint64_t range = shape.volume_bytes;
    if (rng.below(100) < 60) {
        first = shape.shard_bytes - uint64_t{24} * block_bytes;
        range = uint64_t{48} * block_bytes;
    }
    length = std::min(length, range);
    uint64_t offset = first + rng.below((range - length) / sector_bytes + 1) * sector_bytes;
    if (length % block_bytes == 0 && rng.below(4) != 0) offset = round_down(offset, block_bytes);
    return offset;
}

Task<void> SimClient::step(Target target, Rng& rng) {
    uint64_t length = 0;
    const uint64_t offset = pick_range(rng, length);
    const uint64_t dice = rng.below(100);
    const size_t piece = rng.below(3) == 0 ? 512 + rng.below(20'000) : SIZE_MAX;
    if (dice < 38) {
        co_await read(target, offset, length, piece);
    } else if (dice < 78) {
        co_await write(target, offset, length, piece);
    } else if (dice < 82) {
        co_await zero(target, IoKind::discard, offset, length);
    } else if (dice < 86) {
        co_await zero(target, IoKind::write_zeroes, offset, length);
    } else if (dice < 97) {
        const uint64_t room = block_bytes - offset % block_bytes;
        const bool likely = rng.below(4) != 0;
        co_await compare(target, offset, std::min(length, room), likely);
    } else {
        Io io;
        io.kind = IoKind::flush;
        (void)co_await run(target, io, 0);
    }
}

Task<void> SimClient::read(Target target, uint64_t offset, uint64_t length, size_t piece) {
    std::vector<std::byte> bytes(length);
    std::vector<iovec> vectors = vectors_of(bytes, piece);
    Io io;
    io.kind = IoKind::read;
    io.offset = offset;
    io.length = length;
    io.data = vectors;
    const OpId id = oracle_.begin_read(target.index, offset, length);
    const Errc result = co_await run(target, io, id);
    oracle_.end_read(id, result, bytes);
}

Task<void> SimClient::write(Target target, uint64_t offset, uint64_t length, size_t piece) {
    std::vector<std::byte> bytes(length);
    std::vector<iovec> vectors = vectors_of(bytes, piece);
    Io io;
    io.kind = IoKind::write;
    io.offset = offset;
    io.length = length;
    io.data = vectors;
    const OpId id = oracle_.begin_write(target.index, offset, length, false);
    fill_sectors(id, target.index, offset, bytes);
    const Errc result = co_await run(target, io, id);
    oracle_.end_write(id, result);
}

Task<void> SimClient::zero(Target target, IoKind kind, uint64_t offset, uint64_t length) {
    Io io;
    io.kind = kind;
    io.offset = offset;
    io.length = length;
    // A discard leaves parts of blocks alone.
    uint64_t end = offset + length;
    if (kind == IoKind::discard) {
        offset = round_up(offset, block_bytes);
        end = std::max(offset, round_down(end, block_bytes));
    }
    const OpId id = oracle_.begin_write(target.index, offset, end - offset, true);
    const Errc result = co_await run(target, io, id);
    oracle_.end_write(id, result);
}

Task<void> SimClient::compare(Target target, uint64_t offset, uint64_t length, bool likely) {
    BlockTags expected{};
    if (likely) expected = oracle_.likely(target.index, offset);
    std::vector<std::byte> old_bytes(length);
    std::vector<std::byte> bytes(length);
    const iovec old_vector{old_bytes.data(), length};
    const iovec vector{bytes.data(), length};
    Io io;
    io.kind = IoKind::compare_and_write;
    io.offset = offset;
    io.length = length;
    io.expected = {&old_vector, 1};
    io.data = {&vector, 1};
    const OpId id = oracle_.begin_compare(target.index, offset, length, expected);
    fill_from_tags(expected, target.index, offset, old_bytes);
    fill_sectors(id, target.index, offset, bytes);
    const Errc result = co_await run(target, io, id);
    oracle_.end_write(id, result);
}

Task<Errc> SimClient::run(Target target, Io& io, OpId id) {
    const runtime::Nanos begun = cluster_.sim().now();
    if (id != 0) outstanding_.insert(id);
    const Status done = co_await target.volume->run(io);
    outstanding_.erase(id);
    tally_.slowest = std::max(tally_.slowest, cluster_.sim().now() - begun);
    ++tally_.done[static_cast<size_t>(io.kind)];
    const Errc result = done ? Errc::ok : done.error().code;
    const bool compares = io.kind == IoKind::compare_and_write;
    if (result == Errc::miscompare && compares) {
        ++tally_.miscompares;
    } else if (result != Errc::ok) {
        ++tally_.failed;
        const bool allowed =
            (result == Errc::timed_out && plan_.io_timeout != 0) ||
            (result == Errc::corrupt && plan_.corrupts && io.kind != IoKind::flush);
        if (!allowed && tally_.unexpected.empty()) {
            tally_.unexpected =
                fmt::format("an I/O of kind {} at {} length {} failed: {}",
                            static_cast<int>(io.kind), io.offset, io.length, describe(result));
        }
    }
    co_return result;
}

Task<void> SimClient::check_all() {
    const auto process = process_.lock();
    constexpr uint64_t step_bytes = uint64_t{256} << 10;
    for (uint32_t v = 0; v < process->volumes.size(); ++v) {
        const Target target{process->volumes[v].get(), v};
        for (uint64_t at = 0; at < cluster_.shape().volume_bytes; at += step_bytes) {
            const uint64_t length = std::min(step_bytes, cluster_.shape().volume_bytes - at);
            co_await read(target, at, length, SIZE_MAX);
        }
    }
}

std::string SimClient::stuck() const {
    std::string text = fmt::format("{}: {}", node_.name(), finished_ ? "finished" : "not finished");
    for (const OpId id : outstanding_) text += "\n    in flight: " + oracle_.describe(id);
    return text;
}

}  // namespace pf::test
