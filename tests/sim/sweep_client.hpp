// The client of sim_sweep: one process with at most one open volume, which does one operation.
#pragma once

#include "sim_client.hpp"
#include "sim_sweep.hpp"

namespace pf::test {

enum class Operation : uint8_t {
    open,
    open_read_only,
    open_exclusive,
    read,
    write,
    unaligned_write,
    discard,
    write_zeroes,
    compare_and_write,
    flush,
    block_states,
    refresh,
    close,
    restart_store,  // not the client's: it goes on over it
    restart_conductor,
};

class OneClient {
  public:
    OneClient(SimCluster& cluster, Oracle& oracle, const std::string& name)
        : oracle_(oracle), sim_(cluster.sim()), node_(cluster.add_client(name)) {
        node_.start();
    }
    ~OneClient() { node_.kill(); }  // before what its coroutines point to

    [[nodiscard]] runtime::sim::SimNode& node() { return node_; }
    // Nothing: it did not end.
    std::optional<Errc> run(Operation operation) {
        return sim_.run_task(node_, perform(operation), sweep_bound);
    }
    // Behind the back of the open volume, which sees it after a refresh.
    std::optional<Errc> resize(uint64_t size_bytes) {
        return sim_.run_task(node_, grow(size_bytes), sweep_bound);
    }
    [[nodiscard]] uint64_t seen_bytes() const { return volume_->info().size_bytes; }

  private:
    runtime::Task<Errc> perform(Operation operation) {
        constexpr uint64_t at = uint64_t{64} << 10;
        switch (operation) {
            case Operation::open:
                co_return co_await open(false, false);
            case Operation::open_read_only:
                co_return co_await open(true, false);
            case Operation::open_exclusive:
                co_return co_await open(false, true);
            case Operation::read:
                co_return co_await read(at, 8192);
            case Operation::write:
                co_return co_await write(at, 16384, client::IoKind::write);
            case Operation::unaligned_write:
                co_return co_await write(at + 512, 7168, client::IoKind::write);
            case Operation::discard:
                co_return co_await write(at, 8192, client::IoKind::discard);
            case Operation::write_zeroes:
                co_return co_await write(at + 512, 12288, client::IoKind::write_zeroes);
            case Operation::compare_and_write:
                co_return co_await compare(at, block_bytes);
            case Operation::flush: {
                client::Io io;
                io.kind = client::IoKind::flush;
                co_return co_await submit(io);
            }
            case Operation::block_states: {
                const auto states = co_await volume_->block_states(0, uint64_t{1} << 20, 64);
                co_return states ? Errc::ok : states.error().code;
            }
            case Operation::refresh: {
                const Status done = co_await volume_->refresh();
                co_return done ? Errc::ok : done.error().code;
            }
            case Operation::close:
                co_return co_await close();
            case Operation::restart_store:
            case Operation::restart_conductor:
                break;
        }
        co_return Errc::internal;
    }
    runtime::Task<Errc> grow(uint64_t size_bytes) {
        std::string name = volume_name(0);
        const Status done = co_await cluster_->resize_volume(std::move(name), size_bytes);
        co_return done ? Errc::ok : done.error().code;
    }
    runtime::Task<Errc> open(bool read_only, bool exclusive) {
        auto made = client::Cluster::create(SimCluster::client_options(0, 16));
        cluster_ = std::move(*made);
        std::string name = volume_name(0);
        auto opened = co_await cluster_->open(std::move(name), read_only, exclusive);
        if (!opened) co_return opened.error().code;
        volume_ = std::move(*opened);
        co_return Errc::ok;
    }
    runtime::Task<Errc> close() {
        const Status closed = co_await volume_->close();
        co_await cluster_->close();
        volume_.reset();
        co_return closed ? Errc::ok : closed.error().code;
    }
    runtime::Task<Errc> submit(client::Io& io) {
        const Status done = co_await volume_->run(io);
        co_return done ? Errc::ok : done.error().code;
    }
    runtime::Task<Errc> read(uint64_t offset, uint64_t length) {
        std::vector<std::byte> bytes(length);
        const iovec vector{bytes.data(), length};
        client::Io io;
        io.offset = offset;
        io.length = length;
        io.data = {&vector, 1};
        const OpId id = oracle_.begin_read(0, offset, length);
        const Errc result = co_await submit(io);
        oracle_.end_read(id, result, bytes);
        co_return result;
    }
    runtime::Task<Errc> write(uint64_t offset, uint64_t length, client::IoKind kind) {
        std::vector<std::byte> bytes(length);
        const iovec vector{bytes.data(), length};
        client::Io io;
        io.kind = kind;
        io.offset = offset;
        io.length = length;
        const bool data = kind == client::IoKind::write;
        if (data) io.data = {&vector, 1};
        const OpId id = oracle_.begin_write(0, offset, length, !data);
        if (data) fill_sectors(id, 0, offset, bytes);
        const Errc result = co_await submit(io);
        oracle_.end_write(id, result);
        co_return result;
    }
    runtime::Task<Errc> compare(uint64_t offset, uint64_t length) {
        const BlockTags expected = oracle_.likely(0, offset);
        std::vector<std::byte> old_bytes(length);
        std::vector<std::byte> bytes(length);
        const iovec old_vector{old_bytes.data(), length};
        const iovec vector{bytes.data(), length};
        client::Io io;
        io.kind = client::IoKind::compare_and_write;
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
    runtime::sim::SimNode& node_;
    std::unique_ptr<client::Cluster> cluster_;
    std::unique_ptr<client::Volume> volume_;
};

}  // namespace pf::test
