// Crash enumeration of the tray. Random operations run on a tray on a simulated disk; at random
// moments the disk is captured, and from each capture every kind of medium that a power loss could
// leave behind is made: subsets of the unflushed writes, torn at 512 bytes. On each, a fresh tray
// is mounted and held against the model. Some of what such a mount leaves is read by the inspector,
// which holds bitmap and sums against all tables; some states take more operations and lose power
// again.
//
// Counts states that are distinct by hash of the medium, in all and for each kind of moment, prints
// the table, and fails on the first wrong state with the seed that shows it again:
//     crash_states --states=100000 --seed=1        crash_states --only=SEED
#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "runtime/sim/crash_enumerator.hpp"
#include "runtime/sim/simulation.hpp"
#include "tray/format.hpp"
#include "tray/tray.hpp"
#include "tray_check.hpp"
#include "tray_machine.hpp"
#include "tray_model.hpp"
#include "tray_workload.hpp"

namespace pf::test {
namespace {

using namespace runtime::sim;
using runtime::Task;

constexpr size_t kinds = 5;
constexpr std::array<const char*, kinds> kind_names = {"log wrap", "checkpoint", "root switch",
                                                       "generation delete", "full tray"};
using KindSet = std::array<bool, kinds>;

struct Options {
    uint64_t states = 100'000;
    uint64_t seed = 1;
    std::optional<uint64_t> only;
};

struct Totals {
    std::unordered_set<uint64_t> hashes;
    std::array<uint64_t, kinds> by_kind{};
    uint64_t mounts = 0;
    uint64_t second_crashes = 0;
    uint64_t runs = 0;
    uint64_t moments = 0;
};

struct Moment {
    CrashPoint point;
    TrayModel model;
    KindSet kind{};
};

// Which kinds of moment a capture belongs to.
KindSet classify(const CrashPoint& point, const TrayModel& model, uint64_t log_bytes) {
    KindSet kind{};
    constexpr uint64_t log_begin = uint64_t{tray::log_start_address} * block_bytes;
    const uint64_t log_end = log_begin + log_bytes;
    constexpr uint64_t roots_begin = uint64_t{tray::first_root_address} * block_bytes;
    bool low = false, high = false;
    for (const auto& write : point.writes) {
        const uint64_t offset = write.data->offset;
        if (offset >= log_begin && offset < log_end) {
            const uint64_t index = (offset - log_begin) / block_bytes;
            low = low || index == 0;
            high = high || offset + block_bytes == log_end;
        }
        kind[2] = kind[2] || (offset >= roots_begin && offset < log_begin);
    }
    kind[0] = low || high;
    kind[1] = model.checkpointing;
    for (const auto& [id, operation] : model.in_flight) {
        kind[3] = kind[3] || operation.kind == ModelOperation::Kind::delete_generation;
    }
    kind[4] = model.full;
    return kind;
}

struct RunResult {
    std::string wrong;
    std::vector<Moment> moments;
};

WorkloadOptions workload_options(uint64_t seed, Tag first_tag) {
    Rng rng(seed);
    WorkloadOptions options;
    options.seed = seed;
    options.first_tag = first_tag;
    const uint64_t crowd = rng.below(3);
    options.workers = static_cast<uint32_t>(rng.between(1, crowd == 0 ? 16 : 4));
    options.shards = static_cast<uint32_t>(rng.between(1, 2));
    options.shard_blocks = static_cast<uint32_t>(rng.between(64, 700));
    options.operations =
        static_cast<uint32_t>(rng.between(20, 120) + uint64_t{8} * options.workers);
    options.max_blocks = static_cast<uint32_t>(rng.between(1, 24));
    options.fill = rng.below(4) == 0;
    if (options.fill) {
        options.shards = 2;
        options.shard_blocks = static_cast<uint32_t>(rng.between(900, 1400));
    }
    if (rng.below(3) == 0) options.read_percent = 40;  // slow readers hold what others free
    if (rng.below(3) == 0) options.shard_percent = 4;
    return options;
}

// Power losses damage nothing, so whatever a mount has to mend was left so by the tray.
std::string mended(const tray::Tray& tray) {
    if (!tray.loss().empty()) return "the mount found a loss: " + tray.loss();
    if (tray.warnings().empty()) return {};
    return "the mount had to mend something: " + tray.warnings().front();
}

Task<std::string> workload_task(Process& process, TrayModel& model, WorkloadOptions options,
                                bool format, bool check_first, bool& begun) {
    // Power may go while a mount is at work: whatever it has decided about the operations in flight
    // was shown to nobody yet.
    begun = !format;
    auto tray = co_await open_tray(process, format);
    if (!tray) co_return "mount: " + tray.error().text();
    begun = false;
    if (std::string wrong = mended(**tray); !wrong.empty()) co_return wrong;
    if (check_first) {
        std::string wrong = co_await check_and_settle(**tray, model);
        if (!wrong.empty()) co_return wrong;
    }
    begun = true;
    Workload workload(**tray, model, options);
    Status done = co_await workload.run();
    if (!done) co_return "operation: " + done.error().text();
    model.full = false;
    co_return co_await check_and_settle(**tray, model);
}

// What is stuck.
std::string describe(Machine& machine, const TrayModel& model) {
    if (!machine.process().tray) return "no tray is mounted";
    const tray::Usage usage = machine.process().tray->usage();
    std::string text = fmt::format(
        "capacity {} free {} user {} metadata {} held {} blocks, log {} of {} used{}",
        usage.capacity_blocks, usage.free_blocks, usage.user_blocks, usage.metadata_blocks,
        usage.held_blocks, usage.log_used_bytes / block_bytes, usage.log_bytes / block_bytes,
        model.checkpointing ? ", a checkpoint runs" : "");
    for (const auto& [id, operation] : model.in_flight) {
        text += fmt::format("\n  {}: kind {} shard {} generation {} block {}+{}{}", id,
                            static_cast<int>(operation.kind), operation.shard, operation.snap_seq,
                            operation.block, operation.count, operation.durable ? " durable" : "");
    }
    return text;
}

// Runs operations and captures moments, at most `per_kind` of each kind.
RunResult run_workload(Machine& machine, TrayModel model, uint64_t seed, bool format,
                       bool check_first, Tag first_tag, size_t per_kind) {
    RunResult result;
    Rng rng(seed ^ 0xc4a5);
    bool begun = false;
    std::array<size_t, kinds> taken{};
    size_t plain = 0;
    // Power often goes again just after it came back, when the log still ends in old blocks.
    const bool early = !format && seed % 2 == 0;
    machine.disk().on_change([&](SimDisk& disk) {
        // Before the first operation there is nothing to lose, and the check settles the model.
        if (!model.ready || !begun) return;
        CrashPoint point = disk.capture();
        if (point.writes.empty()) return;
        const KindSet kind = classify(point, model, machine.shape().log_bytes);
        // Each kind has its own quota, so that what comes late in a run is not crowded out.
        bool wanted_kind = false, any = false;
        for (size_t i = 0; i < kinds; ++i) {
            any = any || kind[i];
            wanted_kind = wanted_kind || (kind[i] && taken[i] < per_kind);
        }
        if (!any) wanted_kind = plain < per_kind;
        if (!wanted_kind || (!early && rng.below(any ? 5 : 25) != 0)) return;
        for (size_t i = 0; i < kinds; ++i) taken[i] += kind[i] ? 1 : 0;
        plain += any ? 0 : 1;
        result.moments.push_back({std::move(point), model, kind});
    });
    machine.start();
    auto done = machine.sim().run_task(
        machine.node(), workload_task(machine.process(), model, workload_options(seed, first_tag),
                                      format, check_first, begun));
    machine.disk().on_change({});
    result.wrong = done ? *done : "the run did not end: " + describe(machine, model);
    machine.node().kill();
    return result;
}

Task<std::string> check_task(Process& process, TrayModel& model) {
    auto tray = co_await open_tray(process, false);
    if (!tray) co_return "mount: " + tray.error().text();
    if (std::string wrong = mended(**tray); !wrong.empty()) co_return wrong;
    co_return co_await check_and_settle(**tray, model);
}

std::string check_state(Machine& machine, const CrashState& state, TrayModel& model) {
    machine.disk().replace(state.medium);
    machine.start();
    auto done = machine.sim().run_task(machine.node(), check_task(machine.process(), model));
    machine.node().kill();
    return done ? *done : "the check did not end";
}

// What the checked tray left on the disk, offline.
Task<std::string> inspect_task() {
    const auto report = co_await inspect_disk();
    if (!report) co_return "inspection: " + report.error().text();
    if (report->damage.empty()) co_return std::string();
    co_return fmt::format("inspection: {}: {}", report->damage[0].where, report->damage[0].what);
}

std::string inspect_state(Machine& machine) {
    machine.start();
    auto done = machine.sim().run_task(machine.node(), inspect_task());
    machine.node().kill();
    return done ? *done : "the inspection did not end";
}

class Suite {
  public:
    explicit Suite(Options options) : options_(options) {}

    int run() {
        for (uint64_t seed = options_.only.value_or(options_.seed);; ++seed) {
            std::string wrong = run_seed(seed);
            if (!wrong.empty()) {
                fmt::print("FAILED with --only={}: {}\n", seed, wrong);
                return 1;
            }
            ++totals_.runs;
            if (options_.only || totals_.hashes.size() >= options_.states) break;
        }
        return report();
    }

  private:
    std::string run_seed(uint64_t seed) {
        Machine machine(MachineShape::draw(seed));
        RunResult first = run_workload(machine, {}, seed, true, false, 2, 2);
        if (!first.wrong.empty()) return "without a crash: " + first.wrong;
        Machine checker(machine.shape().checker());
        for (size_t i = 0; i < first.moments.size(); ++i) {
            std::string wrong = enumerate(checker, first.moments[i], seed * 64 + i, true);
            if (!wrong.empty()) return fmt::format("moment {}: {}", i, wrong);
        }
        return {};
    }

    std::string enumerate(Machine& checker, const Moment& moment, uint64_t seed, bool again) {
        ++totals_.moments;
        CrashOptions options;
        options.seed = seed;
        options.exhaustive_writes = 7;
        options.edge_limit = 12;
        options.samples = 24;
        CrashEnumerator states(moment.point, options);
        Rng rng(seed);
        while (auto state = states.next()) {
            if (!totals_.hashes.insert(state->medium.hash()).second) continue;
            for (size_t kind = 0; kind < kinds; ++kind)
                totals_.by_kind[kind] += moment.kind[kind] ? 1u : 0u;
            ++totals_.mounts;
            TrayModel model = moment.model;
            model.checkpointing = model.full = false;
            std::string wrong = check_state(checker, *state, model);
            if (wrong.empty() && totals_.mounts % 16 == 0) wrong = inspect_state(checker);
            if (!wrong.empty()) return fmt::format("state {}: {}", state->text(), wrong);
            if (again && rng.below(200) == 0) {
                wrong = crash_again(checker, *state, moment.model, seed + rng.below(1'000'000));
                if (!wrong.empty()) return fmt::format("state {}, then {}", state->text(), wrong);
            }
        }
        return {};
    }

    // Mounts the state once more, goes on working there and loses power a second time (T1).
    std::string crash_again(Machine& checker, const CrashState& state, TrayModel model,
                            uint64_t seed) {
        ++totals_.second_crashes;
        model.checkpointing = model.full = false;
        MachineShape shape = checker.shape();
        shape.seed = seed;
        shape.slow_ppm = seed % 3 == 0 ? 40'000 : 0;
        shape.slow_extra = 20 * runtime::milliseconds;
        Machine machine(shape);
        machine.disk().replace(state.medium);
        RunResult second = run_workload(machine, model, seed, false, true, Tag{1} << 40, 1);
        if (!second.wrong.empty()) return "second run: " + second.wrong;
        for (const Moment& moment : second.moments) {
            std::string wrong = enumerate(checker, moment, seed + 7, false);
            if (!wrong.empty()) return "second crash: " + wrong;
        }
        return {};
    }

    int report() const {
        const uint64_t states = totals_.hashes.size();
        fmt::print("{} distinct crash states from {} moments of {} runs, {} second crashes\n",
                   states, totals_.moments, totals_.runs, totals_.second_crashes);
        bool enough = true;
        for (size_t kind = 0; kind < kinds; ++kind) {
            const double share =
                100.0 * static_cast<double>(totals_.by_kind[kind]) / static_cast<double>(states);
            fmt::print("  {:18} {:>9}  {:5.1f} %\n", kind_names[kind], totals_.by_kind[kind],
                       share);
            enough = enough && share >= 5.0;
        }
        if (!enough && !options_.only) {
            fmt::print("FAILED: a kind of moment has less than 5 % of the states\n");
            return 1;
        }
        return 0;
    }

    Options options_;
    Totals totals_;
};

}  // namespace
}  // namespace pf::test

int main(int argc, char** argv) {
    pf::test::Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        const auto value = [&](std::string_view name) -> std::optional<uint64_t> {
            if (!argument.starts_with(name)) return std::nullopt;
            return std::strtoull(argument.data() + name.size(), nullptr, 10);
        };
        if (auto v = value("--states=")) options.states = *v;
        if (auto v = value("--seed=")) options.seed = *v;
        if (auto v = value("--only=")) options.only = v;
    }
    return pf::test::Suite(options).run();
}
