// The tray alone: random 4 KiB writes and reads on one reactor, no network. Shows the tray's share
// of an I/O, the device bytes per user byte and how long a mount after SIGKILL takes.
//     tray_bench FILE [--size-mib=4096] [--seconds=5] [--depth=128] [--log-mib=0]
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "base/crc32c.hpp"
#include "runtime/sync.hpp"
#include "runtime/uring/uring_reactor.hpp"
#include "tray/tray.hpp"

namespace {

using namespace pf;
using namespace pf::runtime;

struct Settings {
    std::string path;
    uint64_t size_mib = 4096;
    uint64_t seconds = 5;
    uint32_t depth = 128;
    uint64_t log_mib = 0;
};

struct Phase {
    tray::Tray* tray = nullptr;
    uint32_t blocks = 0;
    bool writes = true;
    Nanos until = 0;
    uint64_t limit = 0;  // operations; 0: until the time
    uint64_t done = 0;
    uint64_t sequence = 0;
    std::vector<uint32_t> latencies_us;
    bool failed = false;
};

double cpu_seconds() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

Task<void> worker(Phase& phase, WaitGroup& group) {
    Reactor& reactor = Reactor::current();
    Buffer buffer = co_await reactor.buffers().allocate(block_bytes);
    std::ranges::fill(buffer.bytes(), std::byte{42});
    uint32_t crc = crc32c(buffer.bytes());
    iovec memory{buffer.data(), buffer.size()};
    while (!phase.failed &&
           (phase.limit == 0 ? reactor.now() < phase.until : phase.done < phase.limit)) {
        ++phase.done;
        const Nanos start = reactor.fresh_now();
        const auto block = static_cast<uint32_t>(reactor.rng().below(phase.blocks));
        if (phase.writes) {
            auto reservation = phase.tray->reserve(1, 1, block, 1, tray::WriteKind::data);
            if (!reservation) {
                phase.failed = true;
                break;
            }
            tray::WriteRequest request;
            request.shard = 1;
            request.snap_seq = 1;
            request.position = {1, ++phase.sequence};
            request.block = block;
            request.count = 1;
            request.data = {&memory, 1};
            request.crcs = {&crc, 1};
            auto ticket = co_await phase.tray->write(request, *reservation);
            if (!ticket)
                phase.failed = true;
            else
                phase.tray->commit(*ticket);
        } else {
            tray::ReadRequest request;
            request.shard = 1;
            request.snap_seq = 1;
            request.block = block;
            request.count = 1;
            request.to = buffer.bytes();
            request.crcs = {&crc, 1};
            const Status status = co_await phase.tray->read(request);
            if (!status) phase.failed = true;
        }
        phase.latencies_us.push_back(
            static_cast<uint32_t>((reactor.fresh_now() - start) / microseconds));
    }
    group.done();
}

Task<void> run_phase(Phase& phase, const char* name, uint32_t depth, Nanos duration) {
    Reactor& reactor = Reactor::current();
    const tray::Counters before = phase.tray->counters();
    phase.latencies_us.clear();
    phase.latencies_us.reserve(4'000'000);
    phase.done = 0;
    const Nanos start = reactor.fresh_now();
    phase.until = start + duration;
    const double cpu = cpu_seconds();
    WaitGroup group;
    group.add(depth);
    for (uint32_t i = 0; i < depth; ++i) reactor.spawn(worker(phase, group));
    co_await group.wait();
    const double seconds = static_cast<double>(reactor.fresh_now() - start) / 1e9;
    const double cpu_us = (cpu_seconds() - cpu) * 1e6 / static_cast<double>(phase.done);
    auto& sorted = phase.latencies_us;
    std::ranges::sort(sorted);
    const tray::Counters after = phase.tray->counters();
    fmt::print("{:12} depth {:3}: {:8.0f} IOPS, p50 {:5} us, p99 {:6} us, cpu {:.2f} us/io", name,
               depth, static_cast<double>(phase.done) / seconds, sorted[sorted.size() / 2],
               sorted[sorted.size() * 99 / 100], cpu_us);
    if (phase.writes) {
        const auto writes = static_cast<double>(after.writes - before.writes);
        const double log = static_cast<double>(after.log_blocks - before.log_blocks) / writes;
        const double tables =
            static_cast<double>(after.table_blocks - before.table_blocks) / writes;
        fmt::print(", device/user {:.3f} (log {:.3f}, tables {:.3f}), {} checkpoints, {} flushes",
                   1 + log + tables, log, tables, after.checkpoints - before.checkpoints,
                   after.flushes - before.flushes);
    }
    fmt::print("{}\n", phase.failed ? " FAILED" : "");
}

Task<Result<std::unique_ptr<tray::Tray>>> open_tray(Settings settings, bool format) {
    Reactor& reactor = Reactor::current();
    DiskOptions disk_options;
    disk_options.create_bytes = settings.size_mib << 20;
    PF_CO_TRY_ASSIGN(auto disk, co_await reactor.open_disk(settings.path, disk_options));
    if (format) {
        tray::FormatOptions options;
        options.force = true;
        options.log_bytes = settings.log_mib << 20;
        PF_CO_TRY(co_await tray::Tray::format(*disk, options));
    }
    tray::MountOptions options;
    co_return co_await tray::Tray::mount(std::move(disk), options);
}

Task<Status> run(Settings settings) {
    Reactor& reactor = Reactor::current();
    auto opened = co_await open_tray(settings, true);
    if (!opened) co_return std::unexpected<Error>(opened.error());
    std::unique_ptr<tray::Tray> tray = std::move(*opened);
    Phase phase;
    phase.tray = tray.get();
    phase.blocks = static_cast<uint32_t>((settings.size_mib << 20) / block_bytes * 6 / 10);
    tray::ShardState shard;
    shard.shard = 1;
    shard.snap_seq = 1;
    shard.blocks = phase.blocks;
    PF_CO_TRY(co_await tray->create_shard(shard));
    const Nanos duration = settings.seconds * seconds;
    co_await run_phase(phase, "randwrite", settings.depth, duration);
    co_await run_phase(phase, "randwrite", 32, duration);
    co_await run_phase(phase, "randwrite", 1, duration);
    phase.writes = false;
    co_await run_phase(phase, "randread", settings.depth, duration);
    co_await run_phase(phase, "randread", 1, duration);
    // The log just short of its next checkpoint, then a mount without a stop.
    phase.writes = true;
    const uint64_t checkpoints = tray->counters().checkpoints;
    phase.limit = 2000;
    while (tray->counters().checkpoints == checkpoints && !phase.failed) {
        phase.done = 0;
        WaitGroup group;
        group.add(settings.depth);
        for (uint32_t i = 0; i < settings.depth; ++i) reactor.spawn(worker(phase, group));
        co_await group.wait();
        const tray::Usage usage = tray->usage();
        if (usage.log_used_bytes * 100 > usage.log_bytes * 45) break;
    }
    const tray::Usage usage = tray->usage();
    fmt::print("log used {} MiB, user {} MiB, metadata {} blocks\n", usage.log_used_bytes >> 20,
               usage.user_blocks * block_bytes >> 20, usage.metadata_blocks);
    std::fflush(stdout);
    co_return Status{};
}

Task<void> main_task(UringReactor& reactor, Settings settings, Status& status) {
    status = co_await run(settings);
    if (status) {
        std::fflush(stdout);
        std::_Exit(0);  // as SIGKILL would: the next start replays
    }
    reactor.stop();
}

Task<void> mount_task(UringReactor& reactor, Settings settings, Status& status) {
    const Nanos start = Reactor::current().fresh_now();
    auto opened = co_await open_tray(settings, false);
    const Nanos took = Reactor::current().fresh_now() - start;
    if (!opened) {
        status = std::unexpected<Error>(opened.error());
    } else {
        fmt::print("mount: {:.3f} s, {} records replayed\n", static_cast<double>(took) / 1e9,
                   (*opened)->counters().replayed_records);
        status = co_await (*opened)->stop();
    }
    reactor.stop();
}

}  // namespace

int main(int argc, char** argv) {
    Settings settings;
    bool mount_only = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        const auto number = [&](std::string_view prefix, auto& to) {
            if (!argument.starts_with(prefix)) return false;
            to = static_cast<std::remove_reference_t<decltype(to)>>(
                std::strtoull(argv[i] + prefix.size(), nullptr, 10));
            return true;
        };
        if (argument == "--mount")
            mount_only = true;
        else if (!number("--size-mib=", settings.size_mib) &&
                 !number("--seconds=", settings.seconds) && !number("--depth=", settings.depth) &&
                 !number("--log-mib=", settings.log_mib)) {
            settings.path = argument;
        }
    }
    if (settings.path.empty()) {
        fmt::print(stderr,
                   "usage: tray_bench FILE [--size-mib=] [--seconds=] [--depth=] "
                   "[--log-mib=] [--mount]\n");
        return 2;
    }
    UringOptions options;
    auto reactor = UringReactor::create(options);
    if (!reactor) {
        fmt::print(stderr, "{}\n", reactor.error().text());
        return 1;
    }
    Status status;
    if (mount_only)
        (*reactor)->spawn(mount_task(**reactor, settings, status));
    else
        (*reactor)->spawn(main_task(**reactor, settings, status));
    (*reactor)->run();
    if (!status) fmt::print(stderr, "{}\n", status.error().text());
    return status ? 0 : 1;
}
