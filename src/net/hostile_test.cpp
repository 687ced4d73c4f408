// Peers that do not keep to the protocol, by fault or by intent: each is disconnected, with a
// reason, and costs no more than its connection.
#include "net/net_test.hpp"

namespace pf::net {
namespace {

using runtime::Connection;
using runtime::Task;

class Hostile : public NetTest {
  public:
    // Less memory than a greedy peer asks for: it must get it back from those that are gone.
    Hostile() : NetTest({.buffer_bytes = size_t{16} << 20}) {}
    // The one line that the server's log would have.
    void expect_peer_error(std::string_view text) {
        sim.run_for(runtime::seconds);
        ASSERT_EQ(volume.peer_errors.size(), 1u);
        EXPECT_NE(volume.peer_errors[0].find(text), std::string::npos) << volume.peer_errors[0];
        EXPECT_EQ(volume.connected, 0);
        EXPECT_EQ(serving->connections(), 0u);
        EXPECT_EQ(server.reactor().buffers().free_bytes(),
                  server.reactor().buffers().arena().size());
    }
};

Task<std::unique_ptr<Connection>> dial() {
    auto connecting =
        runtime::Reactor::current().connect(NetTest::server_address(), runtime::seconds);
    auto connection = co_await connecting;
    PF_ASSERT(connection.has_value());
    co_return std::move(*connection);
}

template <class Message>
Task<void> send_message(Connection& connection, Message message) {
    std::byte bytes[wire::header_bytes];
    wire::encode(message, bytes);
    const Status sent = co_await connection.send(Bytes(bytes));
    EXPECT_TRUE(sent.has_value());
}

Task<void> receive_header(Connection& connection, std::span<std::byte, wire::header_bytes> into) {
    for (size_t have = 0; have < into.size();) {
        const auto received = co_await connection.receive(MutableBytes(into).subspan(have));
        PF_ASSERT(received && *received > 0);
        have += *received;
    }
}

// What came until the end of the stream.
Task<std::vector<std::byte>> receive_all(Connection& connection) {
    std::vector<std::byte> all;
    std::byte some[4096];
    while (true) {
        const auto received = co_await connection.receive(MutableBytes(some));
        if (!received || *received == 0) co_return all;
        all.insert(all.end(), some, some + *received);
    }
}

Task<std::unique_ptr<Connection>> dial_and_greet(uint16_t depth) {
    auto connection = co_await dial();
    wire::Hello hello;
    hello.depth = depth;
    co_await send_message(*connection, hello);
    std::byte bytes[wire::header_bytes];
    co_await receive_header(*connection, bytes);
    const auto reply = wire::decode_hello_reply(std::span<const std::byte, 64>(bytes));
    EXPECT_TRUE(reply && reply->status == 0);
    co_return connection;
}

Task<void> send_text(std::string text, size_t& answered) {
    auto connection = co_await dial();
    const Status sent = co_await connection->send(as_bytes(text));
    EXPECT_TRUE(sent.has_value());
    const auto answer = co_await receive_all(*connection);
    answered = answer.size();
    connection->shut_down();
}
TEST_F(Hostile, AnHttpRequestIsRefusedAtOnce) {
    size_t answered = 1;
    const auto before = sim.now();
    run(send_text("GET / HTTP/1.1\r\n\r\n", answered));
    EXPECT_EQ(answered, 0u);
    EXPECT_LT(sim.now() - before, runtime::seconds);
    expect_peer_error("'GET / HT'");
}

Task<void> silent() {
    auto connection = co_await dial();
    const auto answer = co_await receive_all(*connection);
    EXPECT_TRUE(answer.empty());
    connection->shut_down();
}
TEST_F(Hostile, SilenceInsteadOfHelloEndsAfter5Seconds) {
    const auto before = sim.now();
    run(silent());
    EXPECT_GE(sim.now() - before, 5 * runtime::seconds);
    EXPECT_LT(sim.now() - before, 6 * runtime::seconds);
    expect_peer_error("no hello within 5 s");
}

Task<void> newer_version() {
    auto connection = co_await dial();
    wire::Hello hello;
    hello.depth = 1;
    hello.version_min = 5;
    hello.version_max = 6;
    co_await send_message(*connection, hello);
    const auto answer = co_await receive_all(*connection);
    EXPECT_EQ(answer.size(), wire::header_bytes);
    if (answer.size() == wire::header_bytes) {
        const auto reply = wire::decode_hello_reply(std::span<const std::byte, 64>(answer));
        EXPECT_TRUE(reply.has_value());
        if (reply) {
            EXPECT_EQ(reply->status, static_cast<uint16_t>(Errc::unsupported_version));
            EXPECT_EQ(reply->version, wire::version_max);
        }
    }
    connection->shut_down();
}
TEST_F(Hostile, AnUnknownVersionIsAnsweredWithOurs) {
    run(newer_version());
    expect_peer_error("the peer speaks versions 5 to 6, this build 1 to 1");
}

Task<void> bad_header(wire::Command command, uint8_t flip) {
    auto connection = co_await dial_and_greet(4);
    std::byte bytes[wire::header_bytes];
    wire::encode(command, bytes);
    bytes[20] ^= static_cast<std::byte>(flip);
    const Status sent = co_await connection->send(Bytes(bytes));
    EXPECT_TRUE(sent.has_value());
    const auto answer = co_await receive_all(*connection);
    EXPECT_TRUE(answer.empty());
    connection->shut_down();
}
TEST_F(Hostile, ADamagedHeaderEndsTheConnection) {
    run(bad_header({}, 4));
    expect_peer_error("command: crc is");
}
TEST_F(Hostile, ALyingLengthIsRefusedBeforeMemoryIsTaken) {
    wire::Command command;
    command.opcode = wire::Opcode::write;
    command.length = 4096;
    command.payload_length = UINT32_MAX;
    run(bad_header(command, 0));
    expect_peer_error("payload_length is 4294967295, allowed is 4100");
}

Task<void> too_many() {
    auto connection = co_await dial_and_greet(4);
    for (uint32_t id = 0; id < 5; ++id) {
        wire::Command command;
        command.command_id = id;
        co_await send_message(*connection, command);
    }
    const auto answer = co_await receive_all(*connection);
    EXPECT_TRUE(answer.empty());
    connection->shut_down();
}
TEST_F(Hostile, MoreCommandsThanCreditsEndTheConnection) {
    volume.hold = true;
    run(too_many());
    EXPECT_EQ(volume.commands, 4);
    release();
    expect_peer_error("more than its 4 commands in flight");
}

Task<void> half_message(uint32_t length, uint32_t sent_bytes) {
    auto connection = co_await dial_and_greet(4);
    wire::Command command;
    command.opcode = wire::Opcode::write;
    command.length = length;
    command.payload_length = wire::payload_bytes(0, length);
    co_await send_message(*connection, command);
    const std::vector<std::byte> part(sent_bytes);
    const Status sent = co_await connection->send(Bytes(part));
    EXPECT_TRUE(sent.has_value());
    const auto answer = co_await receive_all(*connection);
    EXPECT_TRUE(answer.empty());
    connection->shut_down();
}
TEST_F(Hostile, HalfAMessageTimesOut) {
    run(half_message(4096, 100));
    expect_peer_error("within 30 s");
}
TEST_F(Hostile, HalfOfALargeMessageTimesOut) {
    run(half_message(1u << 20, 500'000));
    expect_peer_error("within 30 s");
}

// More of them than there is memory for: everybody's writes waited for the 30 s of each.
Task<void> beside_half_messages() {
    auto channel = co_await connected();
    for (int i = 0; i < 20; ++i) runtime::Reactor::current().spawn(half_message(1u << 20, 100'000));
    co_await runtime::sleep_for(runtime::seconds);
    const std::vector<std::byte> data(64u << 10);
    const auto before = runtime::Reactor::current().now();
    const Errc status = co_await write_to(*channel, 0, data);
    EXPECT_EQ(status, Errc::ok);
    EXPECT_LT(runtime::Reactor::current().now() - before, 6 * runtime::seconds);
    co_await channel->close();
}
TEST_F(Hostile, regression_half_messages_do_not_hold_all_memory) {
    run(beside_half_messages());
    sim.run_for(40 * runtime::seconds);
    EXPECT_EQ(volume.peer_errors.size(), 20u);
    EXPECT_EQ(server.reactor().buffers().free_bytes(), server.reactor().buffers().arena().size());
}

Task<void> idle_then_ping() {
    auto channel = co_await connected();
    co_await runtime::sleep_for(3600 * runtime::seconds);
    TestIo io(wire::Opcode::ping, 0, 0);
    io.request.command.shard = 0;
    co_await channel->call(io.request);
    EXPECT_EQ(io.status(), Errc::ok);
    co_await channel->close();
}
TEST_F(Hostile, SilenceBetweenMessagesIsAllowed) {
    run(idle_then_ping(), 4000 * runtime::seconds);
    EXPECT_TRUE(volume.peer_errors.empty());
}

// Asks for more than the stream's window holds and never reads it.
Task<void> slow_reader() {
    auto connection = co_await dial_and_greet(64);
    for (uint32_t id = 0; id < 32; ++id) {
        wire::Command command;
        command.opcode = wire::Opcode::read;
        command.command_id = id;
        command.length = 1u << 20;
        co_await send_message(*connection, command);
    }
    co_await runtime::sleep_for(100 * runtime::seconds);
    connection->shut_down();
}
TEST_F(Hostile, APeerThatDoesNotReadIsDropped) {
    run(slow_reader());
    expect_peer_error("took no answers for 30 s");
}

// Asks for many times the server's memory, and takes nothing of it for a while.
Task<void> greedy(runtime::Nanos silence) {
    auto connection = co_await dial_and_greet(128);
    for (uint32_t id = 0; id < 128; ++id) {
        wire::Command command;
        command.opcode = wire::Opcode::read;
        command.command_id = id;
        command.length = 1u << 20;
        co_await send_message(*connection, command);
    }
    co_await runtime::sleep_for(silence);
    connection->shut_down();
}
Task<void> read_in_time(ClientChannel& channel, size_t bytes) {
    std::vector<std::byte> data(bytes);
    const auto before = runtime::Reactor::current().now();
    const Errc status = co_await read_from(channel, 0, data);
    EXPECT_EQ(status, Errc::ok);
    EXPECT_LT(runtime::Reactor::current().now() - before, runtime::seconds);
}
Task<void> beside_greedy_ones(size_t count, runtime::Nanos silence) {
    auto channel = co_await connected();
    for (size_t i = 0; i < count; ++i) runtime::Reactor::current().spawn(greedy(silence));
    co_await runtime::sleep_for(runtime::seconds);
    for (int i = 0; i < 3; ++i) {
        co_await read_in_time(*channel, 4096);
        co_await read_in_time(*channel, 1u << 20);
    }
    co_await channel->close();
    co_await runtime::sleep_for(silence);
}
TEST_F(Hostile, APeerThatDoesNotReadHoldsUpNobodyElse) {
    run(beside_greedy_ones(1, 20 * runtime::seconds));
    EXPECT_TRUE(volume.peer_errors.empty());
    EXPECT_EQ(serving->connections(), 0u);
    EXPECT_EQ(server.reactor().buffers().free_bytes(), server.reactor().buffers().arena().size());
    EXPECT_EQ(server.reactor().buffers().promised_bytes(), 0u);
}
// One client has a connection for each of its shards.
TEST_F(Hostile, ManyConnectionsThatDoNotReadHoldUpNobodyElse) {
    run(beside_greedy_ones(8, 20 * runtime::seconds));
    EXPECT_EQ(server.reactor().buffers().promised_bytes(), 0u);
}

// One that reads gets everything it asked for, though not all of it fits into memory at once.
Task<void> read_all_at_once(size_t count) {
    auto channel = co_await connected();
    std::vector<std::unique_ptr<TestIo>> all;
    for (size_t i = 0; i < count; ++i) {
        all.push_back(std::make_unique<TestIo>(wire::Opcode::read, 0, 1u << 20));
        all.back()->receive_data();
        all.back()->request.complete = [](Request&) {};
        channel->issue(all.back()->request);
    }
    std::vector<std::byte> data(4096);
    const Errc status = co_await write_to(*channel, size_t{2} << 20, data);
    EXPECT_EQ(status, Errc::ok);
    while (channel->in_flight() > 0) co_await runtime::sleep_for(runtime::milliseconds);
    for (const auto& io : all) EXPECT_EQ(io->status(), Errc::ok);
    co_await channel->close();
}
TEST_F(Hostile, ReadsBeyondTheMemoryAreServedInTurn) {
    run(read_all_at_once(100));
    EXPECT_TRUE(volume.peer_errors.empty());
    sim.run_for(runtime::seconds);
    EXPECT_EQ(server.reactor().buffers().promised_bytes(), 0u);
}

// Unsent answers end with their connection, also while it waits to take further commands.
TEST_F(Hostile, AStoppedConnectionGivesBackWhatItWasPromised) {
    client.reactor().spawn(greedy(600 * runtime::seconds));
    sim.run_for(runtime::seconds);
    EXPECT_GT(server.reactor().buffers().promised_bytes(), 0u);
    sim.run_for(40 * runtime::seconds);
    expect_peer_error("took no answers for 30 s");
    EXPECT_EQ(server.reactor().buffers().promised_bytes(), 0u);
}

Task<void> hang_up() {
    auto connection = co_await dial_and_greet(4);
    wire::Command command;
    co_await send_message(*connection, command);
    connection->shut_down();
}
TEST_F(Hostile, HangingUpIsNoError) {
    run(hang_up());
    sim.run_for(runtime::seconds);
    EXPECT_TRUE(volume.peer_errors.empty());
    EXPECT_EQ(serving->connections(), 0u);
}

Task<void> crowd(Server*& server) {
    std::vector<std::unique_ptr<Connection>> all(max_connections);
    for (auto& connection : all) connection = co_await dial();
    co_await runtime::sleep_for(10 * runtime::milliseconds);
    EXPECT_EQ(server->connections(), max_connections);
    auto one_more = co_await dial();
    const auto answer = co_await receive_all(*one_more);
    EXPECT_TRUE(answer.empty());
    EXPECT_EQ(server->connections(), max_connections);
    for (auto& connection : all) connection->shut_down();
}
TEST_F(Hostile, ConnectionsAreBounded) {
    run(crowd(serving));
}

// --- a hostile server ---

struct ServerScript {
    wire::HelloReply hello;
    std::vector<wire::Completion> completions;  // sent once there is a command
    std::vector<std::byte> raw;
};

Task<void> play(runtime::Reactor& reactor, ServerScript script) {
    auto listener = reactor.listen({"", 7});
    PF_ASSERT(listener.has_value());
    auto accepted = co_await (*listener)->accept();
    PF_ASSERT(accepted.has_value());
    Connection& connection = **accepted;
    std::byte bytes[wire::header_bytes];
    co_await receive_header(connection, bytes);
    co_await send_message(connection, script.hello);
    if (!script.completions.empty()) co_await receive_header(connection, bytes);
    for (const wire::Completion& completion : script.completions)
        co_await send_message(connection, completion);
    if (!script.raw.empty()) {
        const Status sent = co_await connection.send(Bytes(script.raw));
        EXPECT_TRUE(sent.has_value());
    }
    const auto rest = co_await receive_all(connection);
    connection.shut_down();
}

Task<void> meet(Errc expected, std::string_view text) {
    ClientOptions options;
    options.depth = 4;
    auto connecting = ClientChannel::connect(runtime::Address{"server", 7}, options);
    auto channel = co_await connecting;
    if (!channel) {
        EXPECT_EQ(channel.error().code, expected) << channel.error().text();
        EXPECT_NE(channel.error().message.find(text), std::string::npos) << channel.error().text();
        co_return;
    }
    TestIo io(wire::Opcode::read, 0, 4096);
    io.receive_data();
    co_await (*channel)->call(io.request);
    EXPECT_EQ(io.status(), Errc::disconnected);
    co_await (*channel)->wait_disconnected();
    EXPECT_EQ((*channel)->failure().code, expected);
    EXPECT_NE((*channel)->failure().message.find(text), std::string::npos)
        << (*channel)->failure().text();
}

ServerScript granting(uint16_t depth) {
    ServerScript script;
    script.hello.depth = depth;
    return script;
}
#define EXPECT_MEETING(script, code, text)                      \
    do {                                                        \
        server.reactor().spawn(play(server.reactor(), script)); \
        run(meet(code, text));                                  \
    } while (false)

TEST_F(Hostile, ServerOfAnotherVersionIsNamed) {
    ServerScript script;
    script.hello.status = static_cast<uint16_t>(Errc::unsupported_version);
    script.hello.version = 9;
    EXPECT_MEETING(script, Errc::unsupported_version, "speaks version 9, this client versions 1");
}
TEST_F(Hostile, ServerGrantsMoreThanAsked) {
    EXPECT_MEETING(granting(64), Errc::protocol, "depth");
}
TEST_F(Hostile, ServerCompletesWhatWasNotAsked) {
    ServerScript script = granting(4);
    script.completions.push_back({.opcode = wire::Opcode::read, .command_id = 2});
    EXPECT_MEETING(script, Errc::protocol, "no such command is in flight");
}
// An "ok" without data would leave the reader with memory that nobody filled or checked.
TEST_F(Hostile, regression_ServerSaysOkToAReadAndSendsNothing) {
    ServerScript script = granting(4);
    script.completions.push_back({.opcode = wire::Opcode::read, .command_id = 0});
    EXPECT_MEETING(script, Errc::protocol, "length is not that of the read");
}
TEST_F(Hostile, ServerSendsDamagedCompletion) {
    ServerScript script = granting(4);
    script.raw.assign(wire::header_bytes, std::byte{3});
    EXPECT_MEETING(script, Errc::protocol, "completion: crc");
}

}  // namespace
}  // namespace pf::net
