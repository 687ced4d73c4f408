#include "attach/nbd_server.hpp"

#include <gtest/gtest.h>

#include <map>

#include "attach/fake_volume.hpp"
#include "attach/nbd_test_client.hpp"

namespace pf::attach::nbd {
namespace {

constexpr uint64_t volume_bytes = 40u << 20;

std::string last_report;

class NbdServerTest : public testing::Test {
  protected:
    void start(ServerOptions options = {}, bool read_only = false) {
        last_report.clear();
        std::vector<Export> exports{{"vol", &volume, read_only}};
        server = std::make_unique<Server>(exports, options,
                                          [](const Error& error) { last_report = error.text(); });
        reactor.call([&] {
            auto listener = reactor.listen({"server", 1});
            server->start(std::move(*listener));
        });
        reactor.run();
    }
    TestClient connect() {
        TestClient client(reactor.connect_client());
        reactor.run();
        return client;
    }
    // A client past a plain GO.
    TestClient connected(bool structured = false, bool context = false) {
        TestClient client = connect();
        client.flags(3);
        if (structured) client.option(Option::structured_reply);
        if (context) client.meta_context(Option::set_meta_context, "vol", base_allocation);
        client.info(Option::go, "vol");
        reactor.run();
        client.received().clear();
        return client;
    }
    // Sends one request and gives the error of its simple reply.
    ErrorNumber ask(TestClient& client, Command command, uint64_t offset, uint32_t length,
                    uint16_t flags = 0) {
        client.request(command, 77, offset, length, flags);
        if (command == Command::write) client.payload(length, 0x5a);
        reactor.run();
        const auto reply = client.take_simple();
        EXPECT_EQ(reply.cookie, 77u);
        if (command == Command::read && reply.error == ErrorNumber::none) client.skip(length);
        EXPECT_TRUE(client.received().empty());
        return reply.error;
    }
    void TearDown() override {
        if (server == nullptr) return;
        bool stopped = false;
        reactor.call([&] { reactor.spawn(stop(stopped)); });
        reactor.run();
        reactor.advance(5 * runtime::seconds);
        EXPECT_TRUE(stopped);
        EXPECT_EQ(server->connections(), 0u);
        EXPECT_EQ(reactor.buffers().free_bytes(), reactor.buffers().arena().size());
    }
    runtime::Task<void> stop(bool& stopped) {
        co_await server->stop(runtime::seconds);
        stopped = true;
    }

    LoopReactor reactor;
    FakeVolume volume{"vol", volume_bytes};
    std::unique_ptr<Server> server;
};

TEST_F(NbdServerTest, GreetsAndListsTheExport) {
    start();
    TestClient client = connect();
    EXPECT_EQ(client.take<uint64_t>(), greeting_magic);
    EXPECT_EQ(client.take<uint64_t>(), option_magic);
    EXPECT_EQ(client.take<uint16_t>(), 3);
    client.flags(3).option(Option::list);
    reactor.run();
    EXPECT_EQ(client.take_option_reply(), OptionReply::server);
    EXPECT_EQ(client.take_option_reply(), OptionReply::ack);
}

TEST_F(NbdServerTest, RefusesTlsUnknownOptionsAndUnknownNames) {
    start();
    TestClient client = connect();
    client.received().clear();
    client.flags(3).option(Option::starttls).option(static_cast<Option>(99));
    client.info(Option::go, "other").option(Option::go, "x");
    reactor.run();
    EXPECT_EQ(client.take_option_reply(), OptionReply::error_policy);
    EXPECT_EQ(client.take_option_reply(), OptionReply::error_unsupported);
    EXPECT_EQ(client.take_option_reply(), OptionReply::error_unknown);
    EXPECT_EQ(client.take_option_reply(), OptionReply::error_invalid);
    client.option(Option::abort);
    reactor.run();
    EXPECT_EQ(client.take_option_reply(), OptionReply::ack);
    EXPECT_TRUE(client.pipe().shut_down);
    EXPECT_EQ(server->connections(), 0u);
}

TEST_F(NbdServerTest, ExportNameGivesSizeAndFlags) {
    start();
    TestClient client = connect();
    client.received().clear();
    client.flags(1).option(Option::export_name, "vol");
    reactor.run();
    EXPECT_EQ(client.take<uint64_t>(), volume_bytes);
    const auto flags = client.take<uint16_t>();
    EXPECT_TRUE(flags & flag_can_multi_conn);
    EXPECT_FALSE(flags & flag_read_only);
    EXPECT_EQ(client.received().size(), 124u);
    client.received().clear();
    EXPECT_EQ(ask(client, Command::read, 0, 512), ErrorNumber::none);
}

TEST_F(NbdServerTest, WritesAndReadsBackAtEverySize) {
    start();
    TestClient client = connected();
    client.pipe().receive_limit = 70'001;  // pieces arrive cut anywhere
    uint8_t value = 1;
    for (const uint32_t length : {512u, 4096u, 33'280u, 131'072u, 1u << 20, 5u << 20, 32u << 20}) {
        for (const uint64_t offset : {0u, 512u, (1u << 20) - 512u}) {
            client.request(Command::write, value, offset, length, command_fua);
            client.payload(length, value);
            client.request(Command::flush, 1000, 0, 0);
            reactor.run();
            EXPECT_EQ(client.take_simple().error, ErrorNumber::none);
            EXPECT_EQ(client.take_simple().error, ErrorNumber::none);
            client.request(Command::read, value, offset, length);
            reactor.run();
            EXPECT_EQ(client.take_simple().error, ErrorNumber::none);
            ASSERT_EQ(client.received(), std::vector<std::byte>(length, std::byte{value}));
            client.received().clear();
            ++value;
        }
    }
}

TEST_F(NbdServerTest, AnswersManyRequestsInFlightByCookie) {
    start();
    TestClient client = connected();
    for (uint64_t i = 0; i < 1000; ++i) {
        client.request(Command::write, i, i * 4096, 4096).payload(4096, static_cast<uint8_t>(i));
    }
    reactor.run();
    std::map<uint64_t, int> answered;
    for (int i = 0; i < 1000; ++i) ++answered[client.take_simple().cookie];
    EXPECT_EQ(answered.size(), 1000u);
    EXPECT_TRUE(client.received().empty());
    for (uint64_t i = 0; i < 1000; ++i)
        ASSERT_EQ(volume.bytes()[i * 4096 + 4095], static_cast<std::byte>(i));
}

TEST_F(NbdServerTest, RefusesBadRequestsAndGoesOn) {
    start();
    TestClient client = connected();
    EXPECT_EQ(ask(client, Command::read, 1, 512), ErrorNumber::invalid);
    EXPECT_EQ(ask(client, Command::read, 0, 511), ErrorNumber::invalid);
    EXPECT_EQ(ask(client, Command::read, 0, 0), ErrorNumber::invalid);
    EXPECT_EQ(ask(client, Command::write, 100, 300), ErrorNumber::invalid);
    EXPECT_EQ(ask(client, Command::read, volume_bytes, 512), ErrorNumber::invalid);
    EXPECT_EQ(ask(client, Command::write, volume_bytes - 512, 1024), ErrorNumber::no_space);
    EXPECT_EQ(ask(client, Command::trim, UINT64_MAX - 511, 512), ErrorNumber::no_space);
    EXPECT_EQ(ask(client, Command::read, 0, 33u << 20), ErrorNumber::invalid);
    EXPECT_EQ(ask(client, Command::read, 0, 512, command_df), ErrorNumber::invalid);
    EXPECT_EQ(ask(client, Command::cache, 0, 512), ErrorNumber::invalid);
    EXPECT_EQ(ask(client, Command::block_status, 0, 512), ErrorNumber::invalid);
    EXPECT_EQ(ask(client, static_cast<Command>(200), 0, 0), ErrorNumber::invalid);
    // Found by nbd_fuzz: an offset beyond everything went on to the volume.
    EXPECT_EQ(ask(client, Command::flush, UINT64_MAX, 0), ErrorNumber::invalid);
    EXPECT_EQ(ask(client, Command::flush, 0, 512), ErrorNumber::invalid);
    EXPECT_EQ(ask(client, Command::write_zeroes, 0, 512, command_no_hole | command_fast_zero),
              ErrorNumber::not_supported);
    EXPECT_EQ(ask(client, Command::write_zeroes, 0, 512, command_fast_zero), ErrorNumber::none);
    EXPECT_EQ(ask(client, Command::trim, 0, 30u << 20), ErrorNumber::none);
    EXPECT_EQ(volume.writes, 0u);
}

TEST_F(NbdServerTest, ReadOnlyRefusesEveryChange) {
    start({}, true);
    TestClient client = connected();
    EXPECT_EQ(ask(client, Command::write, 0, 4096), ErrorNumber::not_permitted);
    EXPECT_EQ(ask(client, Command::trim, 0, 4096), ErrorNumber::not_permitted);
    EXPECT_EQ(ask(client, Command::write_zeroes, 0, 4096), ErrorNumber::not_permitted);
    EXPECT_EQ(ask(client, Command::read, 0, 4096), ErrorNumber::none);
    EXPECT_EQ(volume.writes, 0u);
}

TEST_F(NbdServerTest, PassesOnErrorsOfTheVolume) {
    start();
    TestClient client = connected(true);
    const std::pair<Errc, ErrorNumber> cases[] = {{Errc::corrupt, ErrorNumber::io},
                                                  {Errc::no_space, ErrorNumber::no_space},
                                                  {Errc::cancelled, ErrorNumber::shutdown}};
    for (const auto& [error, expected] : cases) {
        volume.fail_next = error;
        client.request(Command::read, 5, 0, 3u << 20, command_df);
        reactor.run();
        const auto chunk = client.take_chunk();
        EXPECT_EQ(chunk.type, static_cast<uint16_t>(Chunk::error));
        EXPECT_EQ(chunk.flags, chunk_done);
        EXPECT_EQ(chunk.length, 6u);
        EXPECT_EQ(static_cast<ErrorNumber>(client.take<uint32_t>()), expected);
        client.skip(2);
        EXPECT_TRUE(client.received().empty());
    }
}

TEST_F(NbdServerTest, StructuredReadsAndBlockStatus) {
    start();
    TestClient client = connected(true, true);
    client.request(Command::write, 1, 4096, 8192).payload(8192, 9);
    client.request(Command::write_zeroes, 2, 1u << 20, 4096);
    reactor.run();
    client.take_simple();
    client.take_simple();
    client.request(Command::read, 3, 4096, 512);
    reactor.run();
    auto chunk = client.take_chunk();
    EXPECT_EQ(chunk.type, static_cast<uint16_t>(Chunk::offset_data));
    EXPECT_EQ(chunk.length, 520u);
    EXPECT_EQ(client.take<uint64_t>(), 4096u);
    client.skip(512);

    client.request(Command::block_status, 4, 0, 2u << 20);
    reactor.run();
    chunk = client.take_chunk();
    EXPECT_EQ(chunk.type, static_cast<uint16_t>(Chunk::block_status));
    EXPECT_EQ(client.take<uint32_t>(), base_allocation_id);
    const std::pair<uint32_t, uint32_t> expected[] = {
        {4096, 3}, {8192, 0}, {(1u << 20) - 12288, 3}, {4096, 2}, {(1u << 20) - 4096, 3}};
    EXPECT_EQ(chunk.length, 4 + 8 * std::size(expected));
    for (const auto& [length, state] : expected) {
        EXPECT_EQ(client.take<uint32_t>(), length);
        EXPECT_EQ(client.take<uint32_t>(), state);
    }
    client.request(Command::block_status, 5, 0, 2u << 20, command_req_one);
    reactor.run();
    EXPECT_EQ(client.take_chunk().length, 12u);
}

TEST_F(NbdServerTest, ContextOfAnotherNameDoesNotCarryOver) {
    FakeVolume second("second", 8u << 20);
    std::vector<Export> exports{{"vol", &volume, false}, {"second", &second, false}};
    server = std::make_unique<Server>(exports, ServerOptions{});
    reactor.call([&] { server->start(std::move(*reactor.listen({"server", 1}))); });
    TestClient client = connect();
    client.flags(3).option(Option::structured_reply);
    client.meta_context(Option::set_meta_context, "second", base_allocation);
    client.info(Option::go, "vol");
    reactor.run();
    client.received().clear();
    client.request(Command::block_status, 4, 0, 4096);
    reactor.run();
    EXPECT_EQ(client.take_chunk().type, static_cast<uint16_t>(Chunk::error));
}

TEST_F(NbdServerTest, ResizeShowsAtTheNextConnection) {
    start();
    TestClient before = connected();
    volume.next_size_bytes = 2 * volume_bytes;
    TestClient after = connected();
    EXPECT_EQ(ask(before, Command::read, volume_bytes, 512), ErrorNumber::invalid);
    EXPECT_EQ(ask(after, Command::read, volume_bytes, 512), ErrorNumber::none);
}

TEST_F(NbdServerTest, BoundsConnectionsRequestsAndMemory) {
    ServerOptions options;
    options.max_connections = 2;
    options.session.max_requests = 4;
    options.payload_bytes = Session::max_charge_bytes;
    start(options);
    TestClient one = connected();
    TestClient two = connected();
    const auto third = reactor.connect_client();
    reactor.run();
    EXPECT_TRUE(third->shut_down);
    EXPECT_EQ(server->counters().refused, 1u);

    volume.hold();
    for (uint64_t i = 0; i < 3; ++i) {
        one.request(Command::read, i, 0, 16u << 20);
        two.request(Command::read, i, 0, 16u << 20);
    }
    reactor.run();
    // Two of 16 MiB fit the budget of 34; the others wait without memory.
    EXPECT_GE(reactor.buffers().free_bytes(), reactor.buffers().arena().size() - (33u << 20));
    reactor.call([&] { volume.release(); });
    reactor.run();
    EXPECT_EQ(one.received().size(), 3 * ((16u << 20) + 16));
    EXPECT_EQ(two.received().size(), 3 * ((16u << 20) + 16));
}

TEST_F(NbdServerTest, StalledClientIsCutAndItsMemoryFreed) {
    start();
    TestClient client = connected();
    client.pipe().stalled = true;
    client.request(Command::read, 1, 0, 1u << 20);
    reactor.run();
    EXPECT_EQ(server->connections(), 1u);
    reactor.advance(121 * runtime::seconds);
    EXPECT_EQ(server->connections(), 0u);

    TestClient silent = connect();
    reactor.advance(31 * runtime::seconds);
    EXPECT_TRUE(silent.pipe().shut_down);
}

// Each part of it began a new wait.
TEST_F(NbdServerTest, regression_a_payload_in_drips_is_cut_in_time) {
    start();
    TestClient client = connected();
    client.request(Command::write, 1, 0, max_payload_bytes);
    for (int i = 0; i < 3; ++i) {
        client.payload(1u << 20, 1);
        reactor.run();
        EXPECT_EQ(server->connections(), 1u);
        reactor.advance(40 * runtime::seconds);
    }
    reactor.advance(runtime::seconds);
    EXPECT_EQ(server->connections(), 0u);
}

// A large request that waited for another's memory stood in the line before all small ones.
TEST_F(NbdServerTest, regression_large_requests_do_not_hold_up_small_ones) {
    start();
    TestClient slow = connected();
    TestClient waiting = connected();
    slow.request(Command::write, 1, 0, max_payload_bytes);
    waiting.request(Command::write, 1, 0, max_payload_bytes);
    reactor.run();
    TestClient other = connected();
    EXPECT_EQ(ask(other, Command::read, 0, Budgets::small_request_bytes), ErrorNumber::none);
}

// Who does not take the replies to many small requests held the memory of all.
TEST_F(NbdServerTest, regression_a_connection_takes_its_share_at_most) {
    ServerOptions options;
    options.small_payload_bytes = 1u << 20;
    start(options);
    TestClient silent = connected();
    silent.pipe().stalled = true;
    for (uint64_t i = 0; i < 256; ++i) silent.request(Command::read, i, 0, 4096);
    reactor.run();
    TestClient other = connected();
    EXPECT_EQ(ask(other, Command::read, 0, 4096), ErrorNumber::none);
    // All of them are answered once it takes them.
    silent.pipe().stalled = false;
    reactor.run();
    EXPECT_EQ(silent.received().size(), 256u * (4096 + 16));
}

TEST_F(NbdServerTest, HostileStreamsEndTheConnectionWithTheField) {
    start();
    const auto ends_with = [&](TestClient& client, const std::string& words) {
        reactor.run();
        EXPECT_TRUE(client.pipe().shut_down);
        EXPECT_NE(last_report.find(words), std::string::npos) << last_report;
    };
    TestClient flags = connect();
    flags.flags(0xff);
    ends_with(flags, "client flags");
    TestClient magic = connect();
    magic.flags(3).payload(16, 1);
    ends_with(magic, "option magic");
    TestClient longer = connect();
    std::vector<std::byte> header;
    Writer(header).put(option_magic).put(uint32_t{3}).put(UINT32_MAX);
    longer.flags(3).bytes(header);
    ends_with(longer, "option length");
    TestClient many = connect();
    many.flags(3);
    for (int i = 0; i < 300; ++i) many.option(Option::list);
    ends_with(many, "256 options");
    TestClient request = connected();
    request.payload(28, 3);
    ends_with(request, "request magic");
    TestClient huge = connected();
    huge.request(Command::write, 1, 0, 33u << 20);
    ends_with(huge, "write length");
    EXPECT_EQ(server->counters().protocol_errors, 6u);
}

TEST_F(NbdServerTest, LeavingClientLosesNothingInFlight) {
    start();
    TestClient client = connected();
    volume.hold();
    client.request(Command::write, 1, 0, 4096).payload(4096, 7);
    client.request(Command::disconnect, 2, 0, 0);
    reactor.run();
    EXPECT_EQ(server->connections(), 1u);
    reactor.call([&] { volume.release(); });
    reactor.run();
    // Answered, although the client said goodbye first.
    EXPECT_EQ(client.take_simple().cookie, 1u);
    EXPECT_EQ(server->connections(), 0u);
    EXPECT_EQ(volume.bytes()[0], std::byte{7});

    TestClient cut = connected();
    cut.request(Command::write, 1, 0, 1u << 20).payload(1000, 8);
    cut.pipe().client_closed = true;
    reactor.run();
    EXPECT_EQ(server->connections(), 0u);
    EXPECT_EQ(volume.bytes()[0], std::byte{7});
}

TEST_F(NbdServerTest, StopAnswersWhatIsUnderWay) {
    start();
    TestClient client = connected();
    volume.hold();
    client.request(Command::write, 1, 0, 4096).payload(4096, 7);
    reactor.run();
    bool stopped = false;
    reactor.call([&] { reactor.spawn(stop(stopped)); });
    reactor.run();
    client.request(Command::read, 2, 0, 4096);
    reactor.run();
    EXPECT_FALSE(stopped);
    reactor.call([&] { volume.release(); });
    reactor.run();
    EXPECT_TRUE(stopped);
    std::map<uint64_t, ErrorNumber> replies;
    for (int i = 0; i < 2; ++i) {
        const auto reply = client.take_simple();
        replies[reply.cookie] = reply.error;
    }
    EXPECT_EQ(replies[1], ErrorNumber::none);
    EXPECT_EQ(replies[2], ErrorNumber::shutdown);
    server.reset();
}

TEST_F(NbdServerTest, SteadyStateTakesNoFramesFromTheHeap) {
    start();
    TestClient client = connected();
    const auto round = [&] {
        for (uint64_t i = 0; i < 64; ++i) {
            client.request(Command::write, i, i * 4096, 4096).payload(4096, 1);
            client.request(Command::read, i, i * 4096, 4096);
        }
        reactor.run();
        client.received().clear();
    };
    round();
    round();
    const uint64_t before = runtime::frames_allocated();
    for (int i = 0; i < 20; ++i) round();
    EXPECT_EQ(runtime::frames_allocated(), before);
}

}  // namespace
}  // namespace pf::attach::nbd
