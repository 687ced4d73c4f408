// The n-th failure, for what changes the cluster itself: volumes are created, resized, renamed and
// deleted, trays added and removed, losses accepted, while the n-th disk or network operation of
// the store, the client or the conductor, or the n-th commit of its metadata engine fails. Whatever
// the answer was, asking again leads to what was wanted, nothing else has changed, and a restart of
// both daemons finds the same.
#include <fmt/format.h>

#include <array>
#include <set>

#include "sim_client.hpp"
#include "sim_sweep.hpp"
#include "tray/log_format.hpp"

namespace pf::test {
namespace {

using runtime::Task;
using runtime::sim::SimNode;

enum class Operation : uint8_t {
    create,
    resize,
    rename,
    remove,
    force_remove,
    stat,
    list,
    add_tray,
    remove_tray,
    accept_volume,
    accept_tray
};
constexpr std::array<std::string_view, 11> operation_names = {
    "create_volume", "resize_volume", "rename_volume", "delete_volume",
    "force_delete",  "stat_volume",   "list_volumes",  "add_tray",
    "remove_tray",   "accept_volume", "accept_tray"};

constexpr uint64_t max_n = 300;
constexpr uint64_t small_bytes = uint64_t{1} << 20;
constexpr uint64_t large_bytes = uint64_t{9} << 20;  // more shards than before

// Address of the newest log block that holds a write, or 0.
uint64_t newest_write_in_log(const runtime::sim::SimDisk& disk) {
    std::vector<std::byte> bytes(block_bytes);
    disk.contents().read(0, bytes);
    const auto superblock = tray::decode_superblock(bytes);
    uint64_t best = 0;
    uint64_t best_sequence = 0;
    for (uint32_t i = 0; superblock && i < superblock->log_blocks; ++i) {
        const uint64_t offset = (uint64_t{tray::log_start_address} + i) * block_bytes;
        disk.contents().read(offset, bytes);
        const auto block = tray::decode_log_block(bytes, *superblock);
        if (!block || block->records.empty() || block->header.sequence < best_sequence) continue;
        if (static_cast<tray::RecordType>(block->records[0]) != tray::RecordType::write) continue;
        best = offset;
        best_sequence = block->header.sequence;
    }
    return best;
}

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
        holder_ = &cluster_->add_client("holder");
    }
    ~AdminAttempt() {
        client_->kill();
        holder_->kill();
    }
    AdminAttempt(const AdminAttempt&) = delete;
    AdminAttempt& operator=(const AdminAttempt&) = delete;

    std::string run(Failing failing, uint64_t n, bool& reached, SweepTally& tally) {
        const std::string wrong = cluster_->create();
        if (!wrong.empty()) return "create: " + wrong;
        client_->start();
        if (has_victim() && attempt(make("victim")) != Errc::ok)
            return "creation failed without a fault";
        if (operation_ == Operation::force_remove && !hold_open()) return "the victim is not open";
        if (accepts() && !lose_writes()) return "nothing was lost";
        at_conductor_ =
            operation_ == Operation::add_tray || operation_ == Operation::remove_tray || accepts();
        const auto reached_now = arm(*cluster_, *client_, failing, n);
        const std::optional<Errc> result = attempt(perform(false));
        reached = reached_now();
        if (!reached) {
            if (result == Errc::ok) return {};
            return fmt::format("without a failure: {}",
                               result ? describe(*result) : std::string_view("no end"));
        }
        ++tally.runs;
        if (!result) return "it did not end";
        if (*result != Errc::ok) ++tally.failed;
        if (*result != Errc::ok && !says_what_failed(*result))
            return std::string(describe(*result));
        heal();
        if (*result == Errc::ok) {  // asking again must not be what does it
            const std::string early = check_once();
            if (!early.empty()) return "it was told to be done, but: " + early;
        }
        std::string stuck = insist();
        if (!stuck.empty()) return stuck;
        return check_twice(tally);
    }

  private:
    // Removing a tray needs an empty one.
    [[nodiscard]] bool has_victim() const {
        return operation_ != Operation::create && operation_ != Operation::remove_tray;
    }

    [[nodiscard]] bool accepts() const {
        return operation_ == Operation::accept_volume || operation_ == Operation::accept_tray;
    }
    [[nodiscard]] bool removes() const {
        return operation_ == Operation::remove || operation_ == Operation::force_remove;
    }

    // Somebody has the victim open, so that only force deletes it.
    bool hold_open() {
        holder_->start();
        const auto opened = cluster_->sim().run_task(*holder_, open_and_hold(), sweep_bound);
        return opened == Errc::ok && attempt(delete_victim(false)) == Errc::busy;
    }
    Task<Errc> open_and_hold() {
        auto made = client::Cluster::create(SimCluster::client_options(0, 16));
        held_cluster_ = std::move(*made);
        auto opened = co_await held_cluster_->open("victim", false, false);
        if (opened) held_volume_ = std::move(*opened);
        co_return opened ? Errc::ok : opened.error().code;
    }

    // T7: the victim's last write goes with its log block, so that it answers no I/O. False: not.
    bool lose_writes() {
        if (attempt(write_to_victim()) != Errc::ok) return false;
        cluster_->sim().run_for(runtime::seconds);
        cluster_->store_node().kill();
        for (runtime::sim::SimDisk* disk : cluster_->disks()) {
            const uint64_t lost = newest_write_in_log(*disk);
            if (lost != 0) disk->flip_bit(lost + 100, 3);
        }
        cluster_->store_node().restart();
        cluster_->sim().run_for(5 * runtime::seconds);
        return cluster_->has_losses() && attempt(write_to_victim()) == Errc::data_lost;
    }
    Task<Errc> write_to_victim() {
        return with_client([](client::Cluster& c) -> Task<Errc> {
            auto opened = co_await c.open("victim", false, false);
            if (!opened) co_return opened.error().code;
            const std::unique_ptr<client::Volume> volume = std::move(*opened);
            std::vector<std::byte> bytes(block_bytes, std::byte{1});
            const iovec vector{bytes.data(), bytes.size()};
            client::Io io;
            io.kind = client::IoKind::write;
            io.length = block_bytes;
            io.data = {&vector, 1};
            const Status written = co_await volume->run(io);
            const Status closed = co_await volume->close();
            if (!written) co_return written.error().code;
            co_return closed ? Errc::ok : closed.error().code;
        });
    }

    std::optional<Errc> attempt(Task<Errc> task) {
        SimNode& node = at_conductor_ ? cluster_->conductor_node() : *client_;
        return cluster_->sim().run_task(node, std::move(task), sweep_bound);
    }

    // Heartbeats go round; a store whose tray has failed is started again.
    void heal() {
        cluster_->sim().run_for(2 * runtime::seconds);
        if (cluster_->store()->worker(0).problem().empty()) return;
        cluster_->store_node().restart();
        cluster_->sim().run_for(5 * runtime::seconds);
    }

    // As a person would: asks again until the answer says that it is done.
    std::string insist() {
        std::optional<Errc> last;
        for (int i = 0; i < 20; ++i) {
            heal();
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
            case Operation::force_remove:
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
            case Operation::force_remove:
                return delete_victim(operation_ == Operation::force_remove);
            case Operation::stat:
                return with_client([](client::Cluster& c) -> Task<Errc> {
                    const auto info = co_await c.stat("victim");
                    co_return info ? Errc::ok : info.error().code;
                });
            case Operation::list:
                return with_client([](client::Cluster& c) -> Task<Errc> {
                    const auto volumes = co_await c.list();
                    if (!volumes) co_return volumes.error().code;
                    co_return volumes->size() == 2 ? Errc::ok : Errc::internal;
                });
            case Operation::accept_volume:
                return cluster_->accept_loss("victim");
            case Operation::accept_tray:
                return cluster_->accept_loss({});
            case Operation::add_tray:
                return cluster_->add_spare_tray(force);
            case Operation::remove_tray:
                return cluster_->remove_empty_tray();
        }
        return make("victim");
    }
    Task<Errc> make(const std::string& name) {
        return with_client([name](client::Cluster& c) -> Task<Errc> {
            std::string copy = name;
            const auto made = co_await c.create_volume(std::move(copy), small_bytes, 1);
            co_return made ? Errc::ok : made.error().code;
        });
    }
    Task<Errc> delete_victim(bool force) {
        return with_client([force](client::Cluster& c) -> Task<Errc> {
            const Status done = co_await c.delete_volume("victim", force);
            co_return done ? Errc::ok : done.error().code;
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
            const std::string wrong = check_once();
            if (!wrong.empty()) return (restarted ? "after a restart, " : "afterwards, ") + wrong;
        }
        if (!cluster_->store()->worker(0).problem().empty()) ++tally.failed_trays;
        return {};
    }
    std::string check_once() {
        const auto done = cluster_->sim().run_task(*client_, check(), sweep_bound);
        const std::string wrong = done ? *done : "reading the volumes does not end";
        return wrong.empty() ? check_trays() : wrong;
    }
    std::string check_trays() {
        size_t expected = 2;
        if (operation_ == Operation::add_tray) expected = 3;
        if (operation_ == Operation::remove_tray) expected = 1;
        if (cluster_->has_losses()) return "a loss is there that was accepted";
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
        } else if (operation_ == Operation::create || (has_victim() && !removes())) {
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
    SimNode* holder_;
    std::unique_ptr<client::Cluster> held_cluster_;
    std::unique_ptr<client::Volume> held_volume_;
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
                   operation_names[static_cast<size_t>(operation)], n, name_of(failing), wrong);
        return false;
    }
    print_sweep(operation_names[static_cast<size_t>(operation)], name_of(failing), tally);
    return true;
}

}  // namespace

bool sweep_admin(std::string_view only) {
    bool good = true;
    for (size_t i = 0; i < operation_names.size(); ++i) {
        if (!only.empty() && operation_names[i] != only) continue;
        for (const Failing failing : all_failing)
            good = sweep(static_cast<Operation>(i), failing) && good;
    }
    return good;
}

}  // namespace pf::test
