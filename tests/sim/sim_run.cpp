// Whole clusters under random I/O and random faults, one for each seed.
//     sim_run --seeds=100 --first=1        sim_run --only=SEED [--verbose]
// Safety: the oracle (oracle.hpp). Liveness: once the faults stop, every I/O ends within a bounded
// virtual time. Determinism: the first seed is run twice and must give the same trace hash.
#include <fmt/format.h>

#include <cstdlib>
#include <optional>
#include <string_view>

#include "base/log.hpp"
#include "nemesis.hpp"

namespace pf::test {
namespace {

using runtime::Nanos;

// The slowest thing after the end of the faults is a connection that nobody resets.
constexpr Nanos liveness_bound = 90 * runtime::seconds;

struct Totals {
    uint64_t seeds = 0;
    IoTally io;
    TroubleTally troubles{};
    Nanos virtual_time = 0;
    Nanos slowest_recovery = 0;
    uint64_t unknown_outcomes = 0;
    uint64_t atomicity_checks = 0;
    uint64_t hash = 0;
};

class Run {
  public:
    Run(uint64_t seed, Totals& totals)
        : rng_(seed),
          corrupts_(rng_.below(3) == 0),
          cluster_(draw_shape(seed)),
          nemesis_(cluster_, clients_, oracle_, totals.troubles, rng_.next(), corrupts_),
          totals_(totals) {}
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;
    ~Run() {
        for (const auto& client : clients_) client->node().kill();
    }

    // What broke, or nothing.
    std::string run() {
        std::string wrong = cluster_.create();
        if (!wrong.empty()) return "create: " + wrong;
        make_clients();
        auto& sim = cluster_.sim();
        const Nanos end = sim.now() + rng_.between(2000, 6000) * runtime::milliseconds;
        nemesis_.run_until(end);
        sim.run_until([this] { return broken(); }, end);
        if (broken()) return what_broke();
        wrong = recover();
        if (wrong.empty()) wrong = check_after_restart();
        totals_.virtual_time += sim.now();
        totals_.unknown_outcomes += oracle_.unknown_outcomes();
        totals_.atomicity_checks += oracle_.atomicity_checks();
        totals_.hash = totals_.hash * 0x9e3779b97f4a7c15 + sim.trace_hash();
        return wrong;
    }
    [[nodiscard]] uint64_t hash() { return cluster_.sim().trace_hash(); }

  private:
    ClusterShape draw_shape(uint64_t seed) {
        ClusterShape shape;
        shape.seed = seed;
        shape.trays = static_cast<uint32_t>(rng_.between(1, 2));
        shape.volumes = static_cast<uint32_t>(rng_.between(1, 2));
        shape.volatile_cache = rng_.below(3) != 0;
        shape.fua = rng_.below(2) != 0;
        shape.discard = Rng(seed ^ 0x7219).below(4) == 0;
        return shape;
    }

    void make_clients() {
        const uint64_t count = rng_.between(1, 3);
        for (uint64_t i = 0; i < count; ++i) {
            ClientPlan plan;
            plan.seed = rng_.next() >> 32;
            plan.workers = static_cast<uint32_t>(rng_.between(1, rng_.below(4) == 0 ? 10 : 3));
            if (rng_.below(2) == 0)
                plan.io_timeout = rng_.between(20, 1000) * runtime::milliseconds;
            plan.corrupts = corrupts_;
            clients_.push_back(std::make_unique<SimClient>(cluster_, oracle_, totals_.io,
                                                           fmt::format("client{}", i), plan));
            clients_.back()->start();
        }
    }

    [[nodiscard]] bool broken() const {
        return !oracle_.violation().empty() || !totals_.io.unexpected.empty();
    }
    [[nodiscard]] std::string what_broke() const {
        return !oracle_.violation().empty() ? oracle_.violation() : totals_.io.unexpected;
    }
    std::string stuck(const char* when) {
        std::string text = fmt::format("{}: no end within {} virtual seconds", when,
                                       liveness_bound / runtime::seconds);
        for (const auto& client : clients_) text += "\n  " + client->stuck();
        return text;
    }

    std::string recover() {
        auto& sim = cluster_.sim();
        nemesis_.heal();
        for (const auto& client : clients_) client->stop_work();
        const Nanos healed = sim.now();
        const auto all_finished = [this] {
            if (broken()) return true;
            for (const auto& client : clients_) {
                if (!client->finished()) return false;
            }
            return true;
        };
        if (!sim.run_until(all_finished, healed + liveness_bound)) return stuck("after the faults");
        totals_.slowest_recovery = std::max(totals_.slowest_recovery, sim.now() - healed);
        return broken() ? what_broke() : std::string();
    }

    // Durability: a fresh client reads everything from a fresh store process.
    std::string check_after_restart() {
        auto& sim = cluster_.sim();
        nemesis_.kill_store(rng_.below(2) == 0);
        cluster_.store_node().restart();
        ClientPlan plan;
        plan.work = false;
        clients_.push_back(
            std::make_unique<SimClient>(cluster_, oracle_, totals_.io, "reader", plan));
        SimClient& reader = *clients_.back();
        reader.start();
        const auto done = [&] { return broken() || reader.finished(); };
        if (!sim.run_until(done, sim.now() + liveness_bound)) return stuck("the last check");
        if (broken()) return what_broke();
        return cluster_.store()->worker(0).problem();
    }

    Rng rng_;
    bool corrupts_;
    SimCluster cluster_;
    Oracle oracle_;
    std::vector<std::unique_ptr<SimClient>> clients_;
    Nemesis nemesis_;
    Totals& totals_;
};

void print(const Totals& totals) {
    static constexpr std::array<const char*, IoTally::kinds> kinds = {
        "reads", "writes", "flushes", "discards", "write-zeroes", "compare-and-writes", "states"};
    fmt::print("{} seeds, {:.1f} virtual seconds, {} I/Os, {} failed as they may, slowest {} ms\n",
               totals.seeds, static_cast<double>(totals.virtual_time) / 1e9, totals.io.total(),
               totals.io.failed, totals.io.slowest / runtime::milliseconds);
    for (size_t i = 0; i + 1 < kinds.size(); ++i)
        fmt::print("  {:20} {:>9}\n", kinds[i], totals.io.done[i]);
    for (size_t i = 0; i < trouble_count; ++i)
        fmt::print("  {:20} {:>9}\n", trouble_names[i], totals.troubles[i]);
    fmt::print("{} miscompares, {} unknown outcomes, {} atomicity checks, recovery within {} ms\n",
               totals.io.miscompares, totals.unknown_outcomes, totals.atomicity_checks,
               totals.slowest_recovery / runtime::milliseconds);
    fmt::print("trace hash {:016x}\n", totals.hash);
}

bool run_seed(uint64_t seed, Totals& totals) {
    Run run(seed, totals);
    const std::string wrong = run.run();
    ++totals.seeds;
    if (wrong.empty()) return true;
    fmt::print("FAILED, replay with --only={}: {}\n", seed, wrong);
    return false;
}

int run_all(uint64_t first, uint64_t seeds) {
    Totals totals;
    Totals again;
    if (!run_seed(first, totals) || !run_seed(first, again)) return 1;
    if (totals.hash != again.hash) {
        fmt::print("FAILED: seed {} gave trace hashes {:016x} and {:016x}\n", first, totals.hash,
                   again.hash);
        return 1;
    }
    for (uint64_t seed = first + 1; seed < first + seeds; ++seed) {
        if (!run_seed(seed, totals)) return 1;
    }
    print(totals);
    return 0;
}

}  // namespace
}  // namespace pf::test

int main(int argc, char** argv) {
    uint64_t seeds = 20;
    uint64_t first = 1;
    pf::set_log_level(pf::LogLevel::off);
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        const auto number = [&](std::string_view name) -> std::optional<uint64_t> {
            if (!argument.starts_with(name)) return std::nullopt;
            return std::strtoull(argument.data() + name.size(), nullptr, 10);
        };
        if (const auto value = number("--seeds=")) seeds = *value;
        if (const auto value = number("--first=")) first = *value;
        if (const auto value = number("--only=")) first = *value, seeds = 1;
        if (argument == "--verbose") pf::set_log_level(pf::LogLevel::info);
    }
    return pf::test::run_all(first, seeds);
}
