#include "net/rpc.hpp"

#include "net/net_test.hpp"

namespace pf::net {
namespace {

using runtime::Task;

// Answers with the request backwards; "fail ..." with an error; "slow" after a second.
class Backwards : public MemoryVolume {
  public:
    Task<void> on_command(ServerChannel& channel, Incoming incoming) override {
        std::string text(rpc_request(incoming));
        Result<std::string> result = std::string(text.rbegin(), text.rend());
        if (text == "slow") co_await runtime::sleep_for(runtime::seconds);
        if (text.starts_with("fail")) result = fail(Errc::not_found, "no volume 'x'");
        if (text == "huge") result = std::string(wire::max_rpc_bytes + 1, 'x');
        rpc_reply(channel, incoming.command, std::move(result));
    }
};

class Rpc : public ::testing::Test {
  public:
    Rpc() {
        server.start([this](runtime::sim::SimReactor&) -> std::shared_ptr<void> {
            auto made = Server::listen({"", test_port}, handler);
            return std::shared_ptr<Server>(std::move(*made));
        });
        client.start();
    }
    Backwards handler;
    runtime::sim::Simulation sim;
    runtime::sim::SimNode& server = sim.add_node("server");
    runtime::sim::SimNode& client = sim.add_node("client");
};

Task<Result<std::string>> call(ClientChannel& channel, const std::string& text,
                               runtime::Nanos timeout = 10 * runtime::seconds) {
    auto calling = rpc_call(channel, text, timeout);
    co_return co_await calling;
}

Task<void> echoes() {
    auto channel = co_await connected();
    for (const size_t bytes : {0u, 1u, 100u, 4096u, 40961u, 1u << 20}) {
        std::string text(bytes, 'a');
        if (bytes > 0) text.back() = 'z';
        const auto back = co_await call(*channel, text);
        EXPECT_TRUE(back.has_value() && *back == std::string(text.rbegin(), text.rend())) << bytes;
    }
    const auto failed = co_await call(*channel, "fail");
    EXPECT_FALSE(failed.has_value());
    if (!failed) {
        EXPECT_EQ(failed.error().code, Errc::not_found);
        EXPECT_EQ(failed.error().message, "no volume 'x'");
    }
    const auto huge = co_await call(*channel, "huge");
    EXPECT_TRUE(!huge && huge.error().code == Errc::resource_exhausted);
    const std::string over(wire::max_rpc_bytes + 1, 'x');
    const auto too_long = co_await call(*channel, over);
    EXPECT_TRUE(!too_long && too_long.error().code == Errc::resource_exhausted);
    co_await channel->close();
}
TEST_F(Rpc, CarriesBytesAndErrors) {
    EXPECT_TRUE(sim.run_task(client, echoes()));
}

Task<void> impatient() {
    auto channel = co_await connected();
    const auto late = co_await call(*channel, "slow", 100 * runtime::milliseconds);
    EXPECT_TRUE(!late && late.error().code == Errc::timed_out);
    EXPECT_EQ(channel->in_flight(), 1u);
    co_await runtime::sleep_for(2 * runtime::seconds);
    EXPECT_EQ(channel->in_flight(), 0u);
    const auto next = co_await call(*channel, "abc");
    EXPECT_TRUE(next && *next == "cba");
    // Given up, and then the connection goes.
    const auto again = co_await call(*channel, "slow", 100 * runtime::milliseconds);
    EXPECT_TRUE(!again && again.error().code == Errc::timed_out);
    co_await channel->close();
    const auto gone = co_await call(*channel, "abc");
    EXPECT_TRUE(!gone && gone.error().code == Errc::disconnected);
}
TEST_F(Rpc, AnAnswerThatComesTooLateIsDropped) {
    EXPECT_TRUE(sim.run_task(client, impatient()));
}

Task<void> given_up_and_dropped() {
    auto channel = co_await connected();
    const auto late = co_await call(*channel, "slow", 100 * runtime::milliseconds);
    EXPECT_TRUE(!late && late.error().code == Errc::timed_out);
}
TEST_F(Rpc, ChannelDroppedWithACallInFlight) {
    EXPECT_TRUE(sim.run_task(client, given_up_and_dropped()));
    sim.run_for(5 * runtime::seconds);
}

}  // namespace
}  // namespace pf::net
