// The n-th failure: for each public operation of the client library, the n-th disk or network
// operation of the store or of the client fails, for every n until the operation ends without
// reaching it. Afterwards the cluster is healthy and the oracle content, or the store reports its
// tray as failed and is both again once it was restarted.
//     sim_sweep                 sim_sweep --only=OPERATION (a name of the table)
#include <fmt/format.h>

#include <array>
#include <string_view>

#include "base/log.hpp"
#include "sim_client.hpp"
#include "sim_sweep.hpp"

namespace pf::test {
namespace {

using client::Io;
using client::IoKind;
using runtime::Nanos;
using runtime::Task;
using runtime::sim::SimNode;

enum class Operation : uint8_t {
    open,
    read,
    write,
    unaligned_write,
    discard,
    write_zeroes,
    compare_and_write,
    flush,
    block_states,
    close,
};
constexpr std::array<std::string_view, 10> operation_names = {"open",
                                                              "read",
                                                              "write",
                                                              "unaligned_write",
                                                              "discard",
                                                              "write_zeroes",
                                                              "compare_and_write",
                                                              "flush",
                                                              "block_states",
                                                              "close"};

constexpr Nanos bound = 120 * runtime::seconds;
constexpr uint64_t max_n = 300;

// One client process with at most one open volume.
class OneClient {
  public:
    OneClient(SimCluster& cluster, Oracle& oracle)
        : oracle_(oracle), sim_(cluster.sim()), node_(cluster.add_client("client")) {
        node_.start();
    }
    ~OneClient() { node_.kill(); }  // before what its coroutines point to

    [[nodiscard]] SimNode& node() { return node_; }
    // Nothing: it did not end.
    std::optional<Errc> run(Operation operation) {
        return sim_.run_task(node_, perform(operation), bound);
    }

  private:
    Task<Errc> perform(Operation operation) {
        constexpr uint64_t at = uint64_t{64} << 10;
        switch (operation) {
            case Operation::open:
                co_return co_await open();
            case Operation::read:
                co_return co_await read(at, 8192);
            case Operation::write:
                co_return co_await write(at, 16384, IoKind::write);
            case Operation::unaligned_write:
                co_return co_await write(at + 512, 7168, IoKind::write);
            case Operation::discard:
                co_return co_await write(at, 8192, IoKind::discard);
            case Operation::write_zeroes:
                co_return co_await write(at + 512, 12288, IoKind::write_zeroes);
            case Operation::compare_and_write:
                co_return co_await compare(at, block_bytes);
            case Operation::flush: {
                Io io;
                io.kind = IoKind::flush;
                co_return co_await submit(io);
            }
            case Operation::block_states: {
                const auto states = co_await volume_->block_states(0, uint64_t{1} << 20, 64);
                co_return states ? Errc::ok : states.error().code;
            }
            case Operation::close:
                co_return co_await close();
        }
        co_return Errc::internal;
    }
    Task<Errc> open() {
        auto made = client::Cluster::create(SimCluster::client_options(0, 16));
        cluster_ = std::move(*made);
        std::string name = volume_name(0);
        auto opened = co_await cluster_->open(std::move(name), false, false);
        if (!opened) co_return opened.error().code;
        volume_ = std::move(*opened);
        co_return Errc::ok;
    }
    Task<Errc> close() {
        const Status closed = co_await volume_->close();
        co_await cluster_->close();
        volume_.reset();
        co_return closed ? Errc::ok : closed.error().code;
    }
    Task<Errc> submit(Io& io) {
        const Status done = co_await volume_->run(io);
        co_return done ? Errc::ok : done.error().code;
    }
    Task<Errc> read(uint64_t offset, uint64_t length) {
        std::vector<std::byte> bytes(length);
        const iovec vector{bytes.data(), length};
        Io io;
        io.offset = offset;
        io.length = length;
        io.data = {&vector, 1};
        const OpId id = oracle_.begin_read(0, offset, length);
        const Errc result = co_await submit(io);
        oracle_.end_read(id, result, bytes);
        co_return result;
    }
    Task<Errc> write(uint64_t offset, uint64_t length, IoKind kind) {
        std::vector<std::byte> bytes(length);
        const iovec vector{bytes.data(), length};
        Io io;
        io.kind = kind;
        io.offset = offset;
        io.length = length;
        const bool data = kind == IoKind::write;
        if (data) io.data = {&vector, 1};
        const OpId id = oracle_.begin_write(0, offset, length, !data);
        if (data) fill_sectors(id, 0, offset, bytes);
        const Errc result = co_await submit(io);
        oracle_.end_write(id, result);
        co_return result;
    }
    Task<Errc> compare(uint64_t offset, uint64_t length) {
        const BlockTags expected = oracle_.likely(0, offset);
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
        const OpId id = oracle_.begin_compare(0, offset, length, expected);
        fill_from_tags(expected, 0, offset, old_bytes);
        fill_sectors(id, 0, offset, bytes);
        const Errc result = co_await submit(io);
        oracle_.end_write(id, result);
        co_return result;
    }

    Oracle& oracle_;
    runtime::sim::Simulation& sim_;
    SimNode& node_;
    std::unique_ptr<client::Cluster> cluster_;
    std::unique_ptr<client::Volume> volume_;
};

class Attempt {
  public:
    Attempt() {
        ClusterShape shape;
        shape.disk_bytes = uint64_t{24} << 20;
        shape.volume_bytes = uint64_t{1} << 20;
        cluster_ = std::make_unique<SimCluster>(shape);
    }

    // What broke, or nothing; `reached` says whether the n-th operation was.
    std::string run(Operation operation, bool on_store, uint64_t n, bool& reached,
                    SweepTally& tally) {
        const std::string wrong = cluster_->create();
        if (!wrong.empty()) return "create: " + wrong;
        OneClient client(*cluster_, oracle_);
        if (operation != Operation::open) {
            if (client.run(Operation::open) != Errc::ok) return "open failed without a fault";
            if (client.run(Operation::write) != Errc::ok) return "write failed without a fault";
        }
        auto& sim = cluster_->sim();
        SimNode& node = on_store ? cluster_->store_node() : client.node();
        const uint64_t target = node.operations_so_far() + n;
        node.fail_operation(target, EIO);
        const std::optional<Errc> result = client.run(operation);
        reached = node.operations_so_far() >= target;
        if (!reached) {  // the plan would hit whatever comes next
            return result == Errc::ok ? std::string() : "it fails without a failure";
        }
        ++tally.runs;
        const bool tray_failed = !cluster_->store()->worker(0).problem().empty();
        if (tray_failed) ++tally.failed_trays;
        if (!result && !tray_failed) return "it did not end";
        if (result && *result != Errc::ok) {
            ++tally.failed;
            // A block that cannot be read is an error to the user and leaves the tray working.
            const bool allowed = tray_failed || *result == Errc::io_error ||
                                 operation == Operation::open || operation == Operation::close;
            if (!allowed) return fmt::format("a healthy tray, but: {}", describe(*result));
        }
        sim.run_for(runtime::seconds);
        client.node().kill();
        return check(tray_failed);
    }

  private:
    std::string check(bool restart) {
        auto& sim = cluster_->sim();
        if (restart) cluster_->store_node().restart();
        for (const bool again : {false, true}) {
            IoTally io;
            ClientPlan plan;
            plan.work = false;
            SimClient reader(*cluster_, oracle_, io, again ? "reader2" : "reader1", plan);
            reader.start();
            sim.run_until([&] { return reader.finished(); }, sim.now() + bound);
            reader.node().kill();
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

bool sweep(Operation operation, bool on_store) {
    SweepTally tally;
    bool reached = true;
    for (uint64_t n = 1; reached; ++n) {
        Attempt attempt;
        std::string wrong = attempt.run(operation, on_store, n, reached, tally);
        if (n == max_n) wrong = "it never ends without reaching n";
        if (wrong.empty()) continue;
        fmt::print("FAILED: {}, failure {} of the {}: {}\n",
                   operation_names[static_cast<size_t>(operation)], n,
                   on_store ? "store" : "client", wrong);
        return false;
    }
    print_sweep(operation_names[static_cast<size_t>(operation)], on_store ? "store" : "client",
                tally);
    return true;
}

int run(std::string_view only) {
    fmt::print("{:18} {:9} {:>5} {:>18} {:>13}\n", "operation", "failing", "runs",
               "ended with errors", "failed trays");
    bool good = true;
    for (size_t i = 0; i < operation_names.size(); ++i) {
        if (!only.empty() && operation_names[i] != only) continue;
        for (const bool on_store : {true, false})
            good = sweep(static_cast<Operation>(i), on_store) && good;
    }
    good = sweep_admin(only) && good;
    return good ? 0 : 1;
}

}  // namespace

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
