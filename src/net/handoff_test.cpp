// Connections of one port that are served on several reactors, over real sockets and threads.
#include <gtest/gtest.h>
#include <unistd.h>

#include <future>

#include "net/channel.hpp"
#include "runtime/uring/reactor_thread.hpp"

namespace pf::net {
namespace {

using runtime::Connection;
using runtime::Reactor;
using runtime::Task;

constexpr size_t home = 0;
constexpr size_t other = 1;
constexpr size_t clients = 2;
constexpr uint64_t shard_on_other = 1;
constexpr uint64_t slow_shard_on_other = 2;

// Serves on one reactor, and notes what it does.
class Recorder : public Handler {
  public:
    explicit Recorder(Reactor& on) : reactor(on) {}
    Status on_hello(ServerChannel&, const wire::Hello&, wire::HelloReply&) override {
        check_reactor();
        ++connected;
        return {};
    }
    Task<void> on_command(ServerChannel& channel, Incoming incoming) override {
        check_reactor();
        ++commands;
        if (channel.hello().shard == slow_shard_on_other) {
            co_await runtime::sleep_for(200 * runtime::milliseconds);
            check_reactor();
        }
        ++answered;
        channel.reply(incoming.command, Reply{});
    }
    void on_disconnect(ServerChannel&) override {
        check_reactor();
        --connected;
    }
    void check_reactor() const { EXPECT_EQ(&Reactor::current(), &reactor); }

    Reactor& reactor;
    int connected = 0;
    int commands = 0;
    int answered = 0;
};

class Router : public Recorder {
  public:
    Router(Reactor& on, Recorder& to) : Recorder(on), elsewhere(to) {}
    Route route(const wire::Hello& hello) override {
        check_reactor();
        if (hello.shard == 0) return {&reactor, this};
        return {&elsewhere.reactor, &elsewhere};
    }
    Recorder& elsewhere;
};

class Handoff : public ::testing::Test {
  public:
    Handoff() {
        runtime::UringOptions options;
        options.register_arena = false;
        group = std::move(*runtime::ReactorGroup::start({options, options, options}));
        elsewhere = std::make_unique<Recorder>(group->reactor(other));
        router = std::make_unique<Router>(group->reactor(home), *elsewhere);
        address = group->call(home, [this] {
            server = std::move(*Server::listen({"127.0.0.1", 0}, *router));
            return server->local();
        });
    }
    ~Handoff() override {
        stop();
        group.reset();
    }
    void stop() {
        if (server == nullptr) return;
        group->call(home, [this] { return server->stop(); });
        EXPECT_EQ(server->connections(), 0u);
        group->call(home, [this] { server.reset(); });
    }
    uint32_t connections() {
        return group->call(home, [this] { return server->connections(); });
    }
    // What the handler's own reactor sees.
    int connected_elsewhere() {
        return group->call(other, [this] { return elsewhere->connected; });
    }

    std::unique_ptr<runtime::ReactorGroup> group;
    std::unique_ptr<Recorder> elsewhere;
    std::unique_ptr<Router> router;
    std::unique_ptr<Server> server;
    runtime::Address address;
};

using Channel = std::unique_ptr<ClientChannel>;

Task<Channel> dial(runtime::Address address, uint64_t shard) {
    ClientOptions options;
    options.depth = 4;
    options.shard = shard;
    auto connecting = ClientChannel::connect(std::move(address), options);
    auto connected = co_await connecting;
    PF_ASSERT(connected.has_value());
    co_return std::move(*connected);
}

Task<Errc> ping(ClientChannel& channel) {
    Request request;
    request.command.opcode = wire::Opcode::ping;
    co_await channel.call(request);
    co_return request.outcome;
}

Task<bool> hang_up(Channel& channel) {
    co_await channel->close();
    channel.reset();
    co_return true;
}

TEST_F(Handoff, AConnectionIsServedWhereItsShardIs) {
    Channel here = group->call(clients, [this] { return dial(address, 0); });
    Channel there = group->call(clients, [this] { return dial(address, shard_on_other); });
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(group->call(clients, [&] { return ping(*here); }), Errc::ok);
        EXPECT_EQ(group->call(clients, [&] { return ping(*there); }), Errc::ok);
    }
    EXPECT_EQ(connections(), 2u);
    EXPECT_EQ(connected_elsewhere(), 1);
    EXPECT_EQ(group->call(home, [this] { return router->commands; }), 3);
    EXPECT_EQ(group->call(other, [this] { return elsewhere->commands; }), 3);
    group->call(clients, [&] { return hang_up(there); });
    for (int i = 0; i < 500 && connections() > 1; ++i) ::usleep(10'000);
    EXPECT_EQ(connections(), 1u);
    EXPECT_EQ(connected_elsewhere(), 0);
    group->call(clients, [&] { return hang_up(here); });
}

TEST_F(Handoff, AStopWaitsForCommandsOnEveryReactor) {
    Channel there = group->call(clients, [this] { return dial(address, slow_shard_on_other); });
    Channel also = group->call(clients, [this] { return dial(address, shard_on_other); });
    auto asking = std::async(std::launch::async,
                             [&] { return group->call(clients, [&] { return ping(*there); }); });
    const auto busy = [this] { return elsewhere->commands > elsewhere->answered; };
    for (int i = 0; i < 500 && !group->call(other, busy); ++i) ::usleep(1000);
    stop();
    EXPECT_EQ(group->call(other, [this] { return elsewhere->answered; }), 1);
    EXPECT_EQ(connected_elsewhere(), 0);
    EXPECT_EQ(asking.get(), Errc::disconnected);
    group->call(clients, [&] { return hang_up(there); });
    group->call(clients, [&] { return hang_up(also); });
}

// Connects and sends what is no hello, or not yet one.
Task<std::unique_ptr<Connection>> half_greet(runtime::Address address, size_t bytes, bool damaged) {
    auto connecting = Reactor::current().connect(std::move(address), runtime::seconds);
    auto connection = co_await connecting;
    PF_ASSERT(connection.has_value());
    wire::Hello hello;
    hello.depth = 1;
    hello.shard = shard_on_other;
    std::byte message[wire::header_bytes];
    wire::encode(hello, message);
    if (damaged) message[20] ^= std::byte{1};
    if (bytes > 0) {
        const Status sent = co_await (*connection)->send(Bytes(message).first(bytes));
        EXPECT_TRUE(sent.has_value());
    }
    co_return std::move(*connection);
}

Task<bool> drop(std::vector<std::unique_ptr<Connection>>& all) {
    for (auto& connection : all) connection->shut_down();
    all.clear();
    co_return true;
}

TEST_F(Handoff, PeersThatDoNotSayHelloHoldUpNobody) {
    std::vector<std::unique_ptr<Connection>> silent;
    for (size_t i = 0; i < 100; ++i) {
        const size_t bytes = i % 2 == 0 ? wire::header_bytes : i % wire::header_bytes;
        silent.push_back(
            group->call(clients, [&] { return half_greet(address, bytes, i % 2 == 0); }));
    }
    const runtime::Nanos before = group->reactor(clients).fresh_now();
    Channel there = group->call(clients, [this] { return dial(address, shard_on_other); });
    EXPECT_EQ(group->call(clients, [&] { return ping(*there); }), Errc::ok);
    EXPECT_LT(group->reactor(clients).fresh_now() - before, 2 * runtime::seconds);
    // Those with half a hello wait for their deadline; nothing of them reached another reactor.
    EXPECT_EQ(connected_elsewhere(), 1);
    stop();  // ends them too
    group->call(clients, [&] { return drop(silent); });
    group->call(clients, [&] { return hang_up(there); });
}

TEST_F(Handoff, ManyConnectionsComeAndGoWhileItStops) {
    auto coming = std::async(std::launch::async, [this] {
        int served = 0;
        for (int i = 0; i < 300; ++i) {
            served += group->call(clients, [this]() -> Task<int> {
                ClientOptions options;
                options.depth = 1;
                options.shard = shard_on_other;
                auto connecting = ClientChannel::connect(address, options);
                auto connected = co_await connecting;
                if (!connected) co_return 0;
                co_await (*connected)->close();
                co_return 1;
            });
        }
        return served;
    });
    ::usleep(20'000);
    stop();
    EXPECT_GT(coming.get(), 0);
    EXPECT_EQ(connected_elsewhere(), 0);
}

}  // namespace
}  // namespace pf::net
