// A store with a tray on a real file, over real sockets: once warm, an I/O takes nothing from the
// general allocator, from the socket to the disk and back.
#include <gtest/gtest.h>

#include <array>

#include "base/crc32c.hpp"
#include "runtime/frame_pool.hpp"
#include "runtime/uring/uring_test.hpp"
#include "store/store.hpp"

// Counts every use of the general allocator (allocation_count_test.cpp).
extern uint64_t allocations;

namespace pf::pfs {
namespace {

using runtime::Task;
using wire::Opcode;

constexpr uint64_t shard_id = uint64_t{1} << 20;
constexpr uint64_t shard_bytes = uint64_t{64} << 20;
constexpr size_t depth = 16;
constexpr uint32_t max_bytes = 64u << 10;

// One client with a session of its own, one command at a time.
struct Client {
    std::unique_ptr<net::ClientChannel> channel;
    net::Request request;
    uint64_t offset = 0;
    uint64_t next_request_id = 1;
    std::vector<std::byte> sent = std::vector<std::byte>(max_bytes, std::byte{7});
    std::vector<std::byte> received = std::vector<std::byte>(max_bytes);
    std::array<uint32_t, max_bytes / block_bytes> crcs{};
    iovec vector{};

    // Compare-and-write has two halves; all that is sent is the same byte.
    void prepare(Opcode opcode, uint32_t begin, uint32_t length) {
        const uint32_t halves = opcode == Opcode::compare_and_write ? 2 : 1;
        const bool sends = opcode == Opcode::write || halves == 2;
        request.command = {};
        request.command.opcode = opcode;
        request.command.shard = shard_id;
        request.command.offset = offset + begin;
        request.command.length = length;
        request.command.epoch = 1;
        request.command.writer_token = 7;
        if (opcode != Opcode::read) request.command.request_id = next_request_id++;
        const uint32_t pieces = wire::blocks_touched(begin, length) * halves;
        const uint32_t piece_bytes = std::min<uint32_t>(length, block_bytes);
        crcs.fill(crc32c({sent.data(), piece_bytes}));
        vector = {sends ? sent.data() : received.data(), size_t{length} * halves};
        request.data = sends ? std::span<const iovec>(&vector, 1) : std::span<const iovec>();
        request.crcs =
            sends ? std::span<const uint32_t>(crcs).first(pieces) : std::span<const uint32_t>();
        request.into = std::span<const iovec>(&vector, 1);
    }
};

struct Kind {
    Opcode opcode;
    uint32_t begin;
    uint32_t length;
};
constexpr Kind kinds[] = {
    {Opcode::write, 0, 4096},        {Opcode::read, 0, 4096},
    {Opcode::write, 0, 64u << 10},   {Opcode::read, 0, 64u << 10},
    {Opcode::write, 1024, 512},      {Opcode::compare_and_write, 4096, 4096},
    {Opcode::write_zeroes, 0, 8192}, {Opcode::discard, 0, 8192},
};

Task<void> loop(Client& client, int rounds, runtime::WaitGroup& group) {
    for (int round = 0; round < rounds; ++round) {
        for (const Kind& kind : kinds) {
            client.prepare(kind.opcode, kind.begin, kind.length);
            co_await client.channel->call(client.request);
            EXPECT_EQ(client.request.outcome, Errc::ok);
            EXPECT_EQ(client.request.completion.status, 0) << static_cast<int>(kind.opcode);
        }
    }
    group.done();
}

Task<void> run_all(std::span<Client> clients, int rounds) {
    runtime::WaitGroup group;
    group.add(clients.size());
    for (Client& client : clients) runtime::Reactor::current().spawn(loop(client, rounds, group));
    co_await group.wait();
}

Task<Status> make_shard(Store& store, const std::string& path) {
    pureflash::v1::AddTrayRequest add;
    add.set_path(path);
    add.set_create_bytes(uint64_t{1} << 30);  // a log that needs no checkpoint meanwhile
    PF_CO_TRY_ASSIGN(const pureflash::v1::Tray tray, co_await store.add_tray(add));
    pureflash::v1::ApplyShardsRequest apply;
    pureflash::v1::ApplyShard& shard = *apply.add_shards();
    shard.set_tray_uuid(tray.uuid());
    shard.set_replica_uuid(Uuid::from_random(1, 2).text());
    shard.set_fresh(true);
    shard.mutable_shard()->set_id(shard_id);
    shard.mutable_shard()->set_epoch(1);
    shard.mutable_shard()->set_snap_seq(1);
    shard.mutable_shard()->set_writer_token(7);
    shard.mutable_shard()->set_size_bytes(shard_bytes);
    co_return co_await store.apply_shards(apply);
}

Task<Status> connect(Client& client, const runtime::Address& address, uint64_t number) {
    net::ClientOptions options;
    options.session = 100 + number;
    options.shard = shard_id;
    PF_CO_TRY_ASSIGN(client.channel, co_await net::ClientChannel::connect(address, options));
    client.offset = number << 20;
    client.request.command.opcode = Opcode::open_session;
    client.request.command.shard = shard_id;
    client.request.command.epoch = 1;
    client.request.command.writer_token = 7;
    client.vector = {client.received.data(), client.received.size()};
    client.request.into = {&client.vector, 1};
    co_await client.channel->call(client.request);
    if (client.request.outcome != Errc::ok) co_return fail(client.request.outcome);
    const auto status = static_cast<Errc>(client.request.completion.status);
    co_return status == Errc::ok ? Status{} : fail(status);
}

Task<void> measure(runtime::UringReactor& reactor, std::string path) {
    StoreOptions options;
    options.id = Uuid::from_random(3, 4);
    options.cluster = Uuid::from_random(5, 6);
    options.listen = {"127.0.0.1", 0};
    auto started = co_await Store::start(reactor, options);
    CO_ASSERT(started.has_value());
    Store& store = **started;
    const Status made = co_await make_shard(store, path);
    CO_ASSERT(made.has_value());
    std::array<Client, depth> clients;
    for (size_t i = 0; i < depth; ++i) {
        const Status connected = co_await connect(clients[i], store.address(), i);
        EXPECT_TRUE(connected.has_value()) << connected.error().text();
        if (!connected) co_return;
    }
    // Pools grow to what is used at once: four clients use less than sixteen, whatever the order.
    constexpr int rounds = 10;
    co_await run_all(clients, rounds);
    const uint64_t before = allocations;
    const uint64_t frames_before = runtime::frames_allocated();
    co_await run_all(std::span(clients).first(depth / 4), rounds);
    EXPECT_EQ(allocations - before, 0u);
    EXPECT_EQ(runtime::frames_allocated() - frames_before, 0u);
    for (Client& client : clients) co_await client.channel->close();
    co_await store.stop();
}

TEST(StoreSteadyState, AnIoAllocatesNothingFromSocketToDisk) {
    const runtime::TestPath path;
    runtime::UringOptions options;
    options.register_arena = false;
    runtime::TestReactor reactor(options);
    reactor.run([&](runtime::UringReactor& home) { return measure(home, path.text()); });
}

}  // namespace
}  // namespace pf::pfs
