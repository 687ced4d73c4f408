// The n-th failure: for each public operation of the client library, and for a restart of a daemon
// under an open volume, the n-th disk or network operation of the store, the client or the
// conductor, or the n-th commit of its metadata fails, for every n until the operation ends without
// reaching it. Afterwards somebody else's same operation succeeds, the cluster is healthy and the
// oracle content; if the store reports its tray as failed, all that once it was restarted.
//     sim_sweep                 sim_sweep --only=OPERATION (a name of the table)
#include <fmt/format.h>

#include <array>
#include <string_view>

#include "base/log.hpp"
#include "sweep_client.hpp"

namespace pf::test {
namespace {

using runtime::sim::SimNode;

constexpr std::array<std::string_view, 15> operation_names = {
    "open",    "open_read_only", "open_exclusive",    "read",  "write",        "unaligned_write",
    "discard", "write_zeroes",   "compare_and_write", "flush", "block_states", "refresh",
    "close",   "restart_store",  "restart_conductor"};

bool is_open(Operation operation) {
    return operation == Operation::open || operation == Operation::open_read_only ||
           operation == Operation::open_exclusive;
}
bool is_restart(Operation operation) {
    return operation == Operation::restart_store || operation == Operation::restart_conductor;
}
// The conductor takes part: it may answer with what failed there.
bool asks_conductor(Operation operation) {
    return is_open(operation) || operation == Operation::refresh || operation == Operation::close ||
           is_restart(operation);
}

constexpr uint64_t max_n = 300;

class Attempt {
  public:
    Attempt() {
        ClusterShape shape;
        shape.disk_bytes = uint64_t{24} << 20;
        shape.volume_bytes = uint64_t{1} << 20;
        cluster_ = std::make_unique<SimCluster>(shape);
    }

    // What broke, or nothing; `reached` says whether the n-th operation was.
    std::string run(Operation operation, Failing failing, uint64_t n, bool& reached,
                    SweepTally& tally) {
        std::string wrong = cluster_->create();
        if (!wrong.empty()) return "create: " + wrong;
        OneClient client(*cluster_, oracle_, "client");
        wrong = prepare(client, operation);
        if (!wrong.empty()) return wrong;
        const auto reached_now = arm(*cluster_, client.node(), failing, n);
        const std::optional<Errc> result =
            is_restart(operation) ? restart(operation) : client.run(operation);
        reached = reached_now();
        if (!reached) {  // the plan would hit whatever comes next
            return result == Errc::ok ? std::string() : "it fails without a failure";
        }
        ++tally.runs;
        const bool tray_failed = !store_works();
        if (tray_failed) ++tally.failed_trays;
        if (!result && !tray_failed) return "it did not end";
        if (result && *result != Errc::ok) {
            ++tally.failed;
            // A block that cannot be read is an error to the user and leaves the tray working.
            const bool allowed = tray_failed || *result == Errc::io_error ||
                                 (asks_conductor(operation) && says_what_failed(*result));
            if (!allowed) return fmt::format("a healthy tray, but: {}", describe(*result));
        }
        if (result == Errc::ok && operation == Operation::refresh &&
            client.seen_bytes() != grown_bytes)
            return "refreshed, and still the old size";
        cluster_->sim().run_for(runtime::seconds);
        // As what watches over daemons does.
        if (tray_failed) cluster_->store_node().restart();
        if (is_restart(operation)) {
            wrong = go_on(client, operation, result == Errc::ok);
            if (!wrong.empty()) return wrong;
        }
        client.node().kill();
        wrong = repeat(operation);
        return wrong.empty() ? check() : wrong;
    }

  private:
    static constexpr uint64_t grown_bytes = uint64_t{2} << 20;

    static std::string prepare(OneClient& client, Operation operation) {
        if (is_open(operation)) return {};
        if (client.run(Operation::open) != Errc::ok) return "open failed without a fault";
        if (client.run(Operation::write) != Errc::ok) return "write failed without a fault";
        if (operation == Operation::refresh && client.resize(grown_bytes) != Errc::ok)
            return "resize failed without a fault";
        return {};
    }
    [[nodiscard]] bool store_works() const {
        return cluster_->store() != nullptr && cluster_->store()->worker(0).problem().empty();
    }
    // Of a daemon; ends when it does its work again.
    Errc restart(Operation operation) {
        const bool store = operation == Operation::restart_store;
        (store ? cluster_->store_node() : cluster_->conductor_node()).restart();
        const auto works = [this] { return cluster_->healthy() && store_works(); };
        auto& sim = cluster_->sim();
        return sim.run_until(works, sim.now() + 30 * runtime::seconds) ? Errc::ok : Errc::io_error;
    }
    // The client has its volume open all the time.
    std::string go_on(OneClient& client, Operation operation, bool started) {
        if (!started && restart(operation) != Errc::ok)
            return "a second start fails without a fault";
        const bool goes_on =
            client.run(Operation::read) == Errc::ok && client.run(Operation::write) == Errc::ok;
        return goes_on ? std::string() : "an open volume does not go on";
    }
    // Somebody else asks for the same.
    std::string repeat(Operation operation) {
        OneClient client(*cluster_, oracle_, "repeater");
        const std::string wrong = prepare(client, operation);
        if (!wrong.empty()) return "afterwards " + wrong;
        const auto result = is_restart(operation) ? restart(operation) : client.run(operation);
        if (result != Errc::ok) return "afterwards it fails without a fault";
        if (operation == Operation::refresh && client.seen_bytes() != grown_bytes)
            return "afterwards a refresh gives the old size";
        return {};
    }
    std::string check() {
        auto& sim = cluster_->sim();
        for (const bool again : {false, true}) {
            IoTally io;
            ClientPlan plan;
            plan.work = false;
            SimClient reader(*cluster_, oracle_, io, again ? "reader2" : "reader1", plan);
            reader.start();
            sim.run_until([&] { return reader.finished(); }, sim.now() + sweep_bound);
            reader.node().kill();
            const auto all_closed = [this] { return cluster_->open_handles() == 0; };
            if (!sim.run_until(all_closed, sim.now() + 30 * runtime::seconds))
                return "a handle outlives its client";
            if (!oracle_.violation().empty()) return oracle_.violation();
            if (!io.unexpected.empty()) return "afterwards " + io.unexpected;
            if (!reader.finished()) return "afterwards reading everything did not end";
            if (!cluster_->store()->worker(0).problem().empty())
                return cluster_->store()->worker(0).problem();
            cluster_->store_node().power_loss();
            cluster_->store_node().restart();
        }
        return {};
    }

    std::unique_ptr<SimCluster> cluster_;
    Oracle oracle_;
};

bool sweep(Operation operation, Failing failing) {
    const std::string_view name = operation_names[static_cast<size_t>(operation)];
    SweepTally tally;
    bool reached = true;
    for (uint64_t n = 1; reached; ++n) {
        Attempt attempt;
        std::string wrong = attempt.run(operation, failing, n, reached, tally);
        if (n == max_n) wrong = "it never ends without reaching n";
        if (wrong.empty()) continue;
        fmt::print("FAILED: {}, failure {} of the {}: {}\n", name, n, name_of(failing), wrong);
        return false;
    }
    print_sweep(name, name_of(failing), tally);
    return true;
}

int run(std::string_view only) {
    fmt::print("{:18} {:9} {:>5} {:>18} {:>13}\n", "operation", "failing", "runs",
               "ended with errors", "failed trays");
    bool good = true;
    for (size_t i = 0; i < operation_names.size(); ++i) {
        if (!only.empty() && operation_names[i] != only) continue;
        for (const Failing failing : all_failing) {
            // The metadata engine that would fail goes with its process.
            if (static_cast<Operation>(i) == Operation::restart_conductor &&
                failing == Failing::metadata)
                continue;
            good = sweep(static_cast<Operation>(i), failing) && good;
        }
    }
    good = sweep_admin(only) && good;
    return good ? 0 : 1;
}

}  // namespace

std::function<bool()> arm(SimCluster& cluster, SimNode& client, Failing failing, uint64_t n) {
    if (failing == Failing::metadata) {
        cluster.metadata()->fail_commit_after(static_cast<uint32_t>(n - 1));
        return [&cluster] { return !cluster.metadata()->failure_pending(); };
    }
    SimNode& node = failing == Failing::store    ? cluster.store_node()
                    : failing == Failing::client ? client
                                                 : cluster.conductor_node();
    const uint64_t target = node.operations_so_far() + n;
    node.fail_operation(target, EIO);
    return [&node, target] { return node.operations_so_far() >= target; };
}

void print_sweep(std::string_view operation, std::string_view failing, const SweepTally& tally) {
    fmt::print("{:18} {:9} {:>5} {:>18} {:>13}\n", operation, failing, tally.runs, tally.failed,
               tally.failed_trays);
}

}  // namespace pf::test

int main(int argc, char** argv) {
    std::string_view only;
    pf::set_log_level(pf::LogLevel::off);
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        if (argument.starts_with("--only=")) only = argument.substr(7);
        if (argument == "--verbose") pf::set_log_level(pf::LogLevel::info);
    }
    return pf::test::run(only);
}
