// The n-th failure, for what changes the cluster itself: volumes are created, resized, renamed and
// deleted, trays added and removed, while the n-th disk or network operation of the store, the
// client or the conductor, or the n-th commit of its metadata engine fails. Whatever the answer
// was, asking again leads to what was wanted, nothing else has changed, and a restart of both
// daemons finds the same.
#include <fmt/format.h>

#include <array>
#include <set>

#include "sim_client.hpp"
#include "sim_sweep.hpp"

namespace pf::test {
namespace {

using runtime::Task;
using runtime::sim::SimNode;

enum class Operation : uint8_t { create, resize, rename, remove, stat, add_tray, remove_tray };
constexpr std::array<std::string_view, 7> operation_names = {
    "create_volume", "resize_volume", "rename_volume", "delete_volume",
    "stat_volume",   "add_tray",      "remove_tray"};
enum class Failing : uint8_t { store, client, conductor, metadata };
constexpr std::array<std::string_view, 4> failing_names = {"store", "client", "conductor",
                                                           "metadata"};

constexpr runtime::Nanos bound = 120 * runtime::seconds;
constexpr uint64_t max_n = 300;
constexpr uint64_t small_bytes = uint64_t{1} << 20;
constexpr uint64_t large_bytes = uint64_t{9} << 20;  // more shards than before

class AdminAttempt {
  public:
    explicit AdminAttempt(Operation operation) : operation_(operation) {
        ClusterShape shape;
        shape.disk_bytes = uint64_t{24} << 20;
        shape.volume_bytes = small_bytes;
        shape.trays = 2;
        shape.spare_disks = 1;
        cluster_ = std::make_unique<SimCluster>(shape);
        client_ = &cluster_->add_client("admin");
    }
    ~AdminAttempt() { client_->kill(); }
    AdminAttempt(const AdminAttempt&) = delete;
    AdminAttempt& operator=(const AdminAttempt&) = delete;

    std::string run(Failing failing, uint64_t n, bool& reached, SweepTally& tally) {
        const std::string wrong = cluster_->create();
        if (!wrong.empty()) return "create: " + wrong;
        client_->start();
        if (has_victim() && attempt(make("victim")) != Errc::ok)
            return "creation failed without a fault";
        at_conductor_ = operation_ == Operation::add_tray || operation_ == Operation::remove_tray;
        const auto reached_now = arm(failing, n);
        const std::optional<Errc> result = attempt(perform(false));
        reached = reached_now();
        if (!reached) {
            if (result == Errc::ok) return {};
            return fmt::format("without a failure: {}",
                               result ? describe(*result) : std::string_view("no end"));
        }
        ++tally.runs;
        if (result != Errc::ok) ++tally.failed;
        const std::string stuck = insist();
        if (!stuck.empty()) return stuck;
        return check_twice(tally);
    }

  private:
    // Says afterwards whether the failure was met.
    std::function<bool()> arm(Failing failing, uint64_t n) {
        if (failing == Failing::metadata) {
            cluster_->metadata()->fail_commit_after(static_cast<uint32_t>(n - 1));
            return [this] { return !cluster_->metadata()->failure_pending(); };
        }
        SimNode& node = failing == Failing::store    ? cluster_->store_node()
                        : failing == Failing::client ? *client_
                                                     : cluster_->conductor_node();
        const uint64_t target = node.operations_so_far() + n;
        node.fail_operation(target, EIO);
        return [&node, target] { return node.operations_so_far() >= target; };
    }

    // Removing a tray needs an empty one.
    [[nodiscard]] bool has_victim() const {
        return operation_ != Operation::create && operation_ != Operation::remove_tray;
    }

    std::optional<Errc> attempt(Task<Errc> task) {
        SimNode& node = at_conductor_ ? cluster_->conductor_node() : *client_;
        return cluster_->sim().run_task(node, std::move(task), bound);
    }

    // As a person would: asks again until the answer says that it is done.
    std::string insist() {
        std::optional<Errc> last;
        for (int i = 0; i < 20; ++i) {
            cluster_->sim().run_for(2 * runtime::seconds);
            if (!cluster_->store()->worker(0).problem().empty()) {
                cluster_->store_node().restart();
                cluster_->sim().run_for(5 * runtime::seconds);
            }
            last = attempt(perform(i > 0));
            if (last && is_done(*last)) return {};
        }
        return fmt::format("asking again does not help: {}",
                           last ? describe(*last) : std::string_view("no end"));
    }
    [[nodiscard]] bool is_done(Errc result) const {
        if (result == Errc::ok) return true;
        switch (operation_) {
            case Operation::create:
            case Operation::add_tray:  // and the conductor hears of it by a heartbeat
                return result == Errc::already_exists;
            case Operation::rename:
            case Operation::remove:
            case Operation::remove_tray:
                return result == Errc::not_found;
            default:
                return false;
        }
    }

    Task<Errc> perform(bool force) {
        switch (operation_) {
            case Operation::create:
                return make("victim");
            case Operation::resize:
                return with_client([](client::Cluster& c) -> Task<Errc> {
                    const Status done = co_await c.resize_volume("victim", large_bytes);
                    co_return done ? Errc::ok : done.error().code;
                });
            case Operation::rename:
                return with_client([](client::Cluster& c) -> Task<Errc> {
                    const Status done = co_await c.rename_volume("victim", "renamed");
                    co_return done ? Errc::ok : done.error().code;
                });
            case Operation::remove:
                return with_client([](client::Cluster& c) -> Task<Errc> {
                    const Status done = co_await c.delete_volume("victim", false);
                    co_return done ? Errc::ok : done.error().code;
                });
            case Operation::stat:
                return with_client([](client::Cluster& c) -> Task<Errc> {
                    const auto info = co_await c.stat("victim");
                    co_return info ? Errc::ok : info.error().code;
                });
            case Operation::add_tray:
                return cluster_->add_spare_tray(force);
            case Operation::remove_tray:
                return cluster_->remove_empty_tray();
        }
        return make("victim");
    }
    Task<Errc> make(std::string name) {
        return with_client([name](client::Cluster& c) -> Task<Errc> {
            std::string copy = name;
            const auto made = co_await c.create_volume(std::move(copy), small_bytes, 1);
            co_return made ? Errc::ok : made.error().code;
        });
    }
    using Call = std::function<Task<Errc>(client::Cluster&)>;
    // A connection for each call, as pfcli makes one.
    Task<Errc> with_client(Call call) {
        auto made = client::Cluster::create(SimCluster::client_options(0, 16));
        const std::unique_ptr<client::Cluster> cluster = std::move(*made);
        Task<Errc> calling = call(*cluster);
        const Errc result = co_await calling;
        co_await cluster->close();
        co_return result;
    }

    std::string check_twice(SweepTally& tally) {
        for (const bool restarted : {false, true}) {
            if (restarted) {
                cluster_->conductor_node().restart();
                cluster_->store_node().restart();
                cluster_->sim().run_for(5 * runtime::seconds);
            }
            std::string wrong;
            const auto done = cluster_->sim().run_task(*client_, check(), bound);
            wrong = done ? *done : "reading the volumes does not end";
            if (wrong.empty()) wrong = check_trays();
            if (!wrong.empty()) return (restarted ? "after a restart, " : "afterwards, ") + wrong;
        }
        if (!cluster_->store()->worker(0).problem().empty()) ++tally.failed_trays;
        return {};
    }
    std::string check_trays() {
        size_t expected = 2;
        if (operation_ == Operation::add_tray) expected = 3;
        if (operation_ == Operation::remove_tray) expected = 1;
        const size_t found = cluster_->tray_count();
        return found == expected ? std::string()
                                 : fmt::format("{} trays, expected {}", found, expected);
    }
    Task<std::string> check() {
        auto made = client::Cluster::create(SimCluster::client_options(0, 16));
        const std::unique_ptr<client::Cluster> cluster = std::move(*made);
        const auto volumes = co_await cluster->list();
        if (!volumes) co_return "list: " + volumes.error().text();
        std::map<std::string, uint64_t> expected = {{volume_name(0), small_bytes}};
        if (operation_ == Operation::rename) {
            expected["renamed"] = small_bytes;
        } else if (operation_ == Operation::create ||
                   (has_victim() && operation_ != Operation::remove)) {
            expected["victim"] = operation_ == Operation::resize ? large_bytes : small_bytes;
        }
        if (volumes->size() != expected.size())
            co_return fmt::format("{} volumes, expected {}", volumes->size(), expected.size());
        for (const auto& [name, size] : expected) {
            std::string copy = name;
            auto opened = co_await cluster->open(std::move(copy), false, false);
            if (!opened) co_return fmt::format("open {}: {}", name, opened.error().text());
            const std::unique_ptr<client::Volume> volume = std::move(*opened);
            if (volume->info().size_bytes != size)
                co_return fmt::format("{} has {} bytes", name, volume->info().size_bytes);
            std::vector<std::byte> bytes(block_bytes);
            const iovec vector{bytes.data(), bytes.size()};
            client::Io io;
            io.kind = client::IoKind::read;
            io.offset = size - block_bytes;
            io.length = block_bytes;
            io.data = {&vector, 1};
            const Status read = co_await volume->run(io);
            if (!read) co_return fmt::format("read {}: {}", name, read.error().text());
            const Status closed = co_await volume->close();
            if (!closed) co_return fmt::format("close {}: {}", name, closed.error().text());
        }
        co_await cluster->close();
        co_return std::string();
    }

    Operation operation_;
    bool at_conductor_ = false;  // the operation is asked for there
    std::unique_ptr<SimCluster> cluster_;
    SimNode* client_;
};

bool sweep(Operation operation, Failing failing) {
    SweepTally tally;
    bool reached = true;
    for (uint64_t n = 1; reached; ++n) {
        AdminAttempt attempt(operation);
        std::string wrong = attempt.run(failing, n, reached, tally);
        if (n == max_n) wrong = "it never ends without reaching n";
        if (wrong.empty()) continue;
        fmt::print("FAILED: {}, failure {} of the {}: {}\n",
                   operation_names[static_cast<size_t>(operation)], n,
                   failing_names[static_cast<size_t>(failing)], wrong);
        return false;
    }
    print_sweep(operation_names[static_cast<size_t>(operation)],
                failing_names[static_cast<size_t>(failing)], tally);
    return true;
}

}  // namespace

bool sweep_admin(std::string_view only) {
    bool good = true;
    for (size_t i = 0; i < operation_names.size(); ++i) {
        if (!only.empty() && operation_names[i] != only) continue;
        for (size_t f = 0; f < failing_names.size(); ++f)
            good = sweep(static_cast<Operation>(i), static_cast<Failing>(f)) && good;
    }
    return good;
}

}  // namespace pf::test
