// TCP and Unix streams on the ring.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "runtime/uring/uring_test.hpp"

namespace pf::runtime {
namespace {

using ConnectionPointer = std::unique_ptr<Connection>;

Task<void> echo(ConnectionPointer connection) {
    std::vector<std::byte> memory(256 * 1024);
    while (true) {
        auto received = co_await connection->receive(memory);
        if (!received || *received == 0) co_return;
        auto sent = co_await connection->send(Bytes(memory).first(*received));
        if (!sent) co_return;
    }
}

Task<void> serve_echo(UringReactor& reactor, Listener& listener) {
    while (true) {
        auto accepted = co_await listener.accept();
        if (!accepted) {
            EXPECT_EQ(accepted.error().code, Errc::cancelled);
            co_return;
        }
        reactor.spawn(echo(std::move(*accepted)));
    }
}

Task<Status> receive_all(Connection& connection, MutableBytes to) {
    while (!to.empty()) {
        const auto low_water = static_cast<uint32_t>(std::min(to.size(), 128uz << 10));
        auto received = co_await connection.receive(to, low_water);
        if (!received) co_return std::unexpected<Error>(received.error());
        if (*received == 0) co_return fail(Errc::disconnected);
        to = to.subspan(*received);
    }
    co_return Status{};
}

Task<void> send_vectors(Connection& connection, const std::vector<std::byte>& data, size_t pieces) {
    std::vector<iovec> vectors(pieces);
    const size_t piece = data.size() / pieces;
    for (size_t i = 0; i < pieces; ++i) {
        vectors[i] = {const_cast<std::byte*>(data.data()) + i * piece, piece};
    }
    auto sent = co_await connection.send(vectors.data(), static_cast<uint32_t>(pieces));
    EXPECT_TRUE(sent);
}

// A peer that ends before the low water mark is reached must not leave the receive waiting.
Task<void> end_below_low_water(UringReactor& reactor) {
    const Address any{"127.0.0.1", 0};
    auto listener = reactor.listen(any);
    CO_ASSERT(listener);
    auto connected = co_await reactor.connect((*listener)->local(), seconds);
    CO_ASSERT(connected);
    auto accepted = co_await (*listener)->accept();
    CO_ASSERT(accepted);
    const std::vector<std::byte> out(100, std::byte{7});
    auto sent = co_await (*connected)->send(Bytes(out));
    EXPECT_TRUE(sent);
    (*connected)->shut_down();
    std::vector<std::byte> in(8192);
    auto received = co_await (*accepted)->receive(in, 4096);
    CO_ASSERT(received);
    EXPECT_EQ(*received, out.size());
    received = co_await (*accepted)->receive(in, 4096);
    CO_ASSERT(received);
    EXPECT_EQ(*received, 0u);
}

Task<void> exercise_echo(UringReactor& reactor, Address address) {
    auto listener = reactor.listen(address);
    CO_ASSERT(listener);
    reactor.spawn(serve_echo(reactor, **listener));
    const Address local = (*listener)->local();
    auto connected = co_await reactor.connect(local, seconds);
    CO_ASSERT(connected);
    EXPECT_EQ((*connected)->peer(), local);
    for (const size_t bytes : {64uz, 4096uz, 1uz << 20, 16uz << 20}) {
        std::vector<std::byte> out(bytes);
        std::vector<std::byte> in(bytes);
        for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>((i * 7 + i / 255) & 255);
        // Larger than every socket buffer: the send must go on by itself while we receive.
        reactor.spawn(send_vectors(**connected, out, bytes < 4096 ? 1 : 1024));
        auto status = co_await receive_all(**connected, in);
        EXPECT_TRUE(status);
        EXPECT_EQ(0, std::memcmp(in.data(), out.data(), bytes));
    }
    (*connected)->shut_down();
    (*listener)->shut_down();
    co_await sleep_for(5 * milliseconds);
}

TEST(UringNetwork, TcpEcho) {
    TestReactor test;
    test.run([](UringReactor& reactor) -> Task<void> {
        Address any{"127.0.0.1", 0};
        co_await exercise_echo(reactor, any);
        Address six{"::1", 0};
        co_await exercise_echo(reactor, six);
    });
}

TEST(UringNetwork, LowWaterDoesNotWaitBeyondTheEnd) {
    TestReactor test;
    test.run([](UringReactor& reactor) -> Task<void> { co_await end_below_low_water(reactor); });
}

TEST(UringNetwork, UnixEchoAndStaleSocketFile) {
    TestReactor test;
    TestPath path("/tmp");
    // A socket file that nobody listens on any more.
    sockaddr_un stale{};
    stale.sun_family = AF_UNIX;
    std::memcpy(stale.sun_path, path.text().c_str(), path.text().size() + 1);
    const int left_over = ::socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT_EQ(0, ::bind(left_over, reinterpret_cast<sockaddr*>(&stale), sizeof(stale)));
    ::close(left_over);
    test.run([&](UringReactor& reactor) -> Task<void> {
        Address address{path.text(), 0};
        co_await exercise_echo(reactor, address);
    });
    EXPECT_NE(0, ::access(path.text().c_str(), F_OK));
}

// A listener that was shut down may live on for long: the path is its successor's by then.
TEST(UringNetwork, regression_AListenerThatWasShutDownLeavesTheSocketToItsSuccessor) {
    TestReactor test;
    TestPath path("/tmp");
    test.run([&](UringReactor& reactor) -> Task<void> {
        const Address address{path.text(), 0};
        auto first = reactor.listen(address);
        CO_ASSERT(first);
        (*first)->shut_down();
        EXPECT_NE(0, ::access(path.text().c_str(), F_OK));
        auto second = reactor.listen(address);
        CO_ASSERT(second);
        (*first)->shut_down();
        first->reset();
        auto connected = co_await reactor.connect(address, seconds);
        CO_ASSERT(connected);
        auto accepted = co_await (*second)->accept();
        EXPECT_TRUE(accepted);
    });
    EXPECT_NE(0, ::access(path.text().c_str(), F_OK));
}

// An operator, or a server that starts at the same moment, may remove the file of one that runs.
TEST(UringNetwork, regression_AListenerLeavesASocketFileThatIsNotItsOwn) {
    TestReactor test;
    for (const bool shut : {true, false}) {
        SCOPED_TRACE(shut ? "shut down" : "destroyed");
        TestPath path("/tmp");
        test.run([&](UringReactor& reactor) -> Task<void> {
            const Address address{path.text(), 0};
            auto first = reactor.listen(address);
            CO_ASSERT(first);
            EXPECT_EQ(0, ::unlink(path.text().c_str()));
            auto second = reactor.listen(address);
            CO_ASSERT(second);
            if (shut) (*first)->shut_down();
            first->reset();
            auto connected = co_await reactor.connect(address, seconds);
            CO_ASSERT(connected);
            auto accepted = co_await (*second)->accept();
            EXPECT_TRUE(accepted);
        });
        EXPECT_NE(0, ::access(path.text().c_str(), F_OK));
    }
}

TEST(UringNetwork, RefusesASecondListener) {
    TestReactor test;
    const Address any{"127.0.0.1", 0};
    auto first = test->listen(any);
    ASSERT_TRUE(first);
    auto second = test->listen((*first)->local());
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::busy);
    EXPECT_NE(second.error().message.find((*first)->local().text()), std::string::npos);
    EXPECT_FALSE(test->listen(Address{"no.such.host", 1}));
}

TEST(UringNetwork, ConnectFailsWithAReason) {
    TestReactor test;
    test.run([](UringReactor& reactor) -> Task<void> {
        Address free_port{"127.0.0.1", 0};
        {
            auto listener = reactor.listen(free_port);
            CO_ASSERT(listener);
            free_port = (*listener)->local();
        }
        auto refused = co_await reactor.connect(free_port, seconds);
        EXPECT_EQ(refused.error().code, Errc::disconnected);
        EXPECT_NE(refused.error().message.find(free_port.text()), std::string::npos);
        Address name{"no.such.host", 1};
        auto unresolved = co_await reactor.connect(name, seconds);
        EXPECT_EQ(unresolved.error().code, Errc::invalid_argument);
    });
}

// A listener with a full backlog that accepts nothing: further connects hang.
TEST(UringNetwork, ConnectTimesOut) {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    ASSERT_EQ(0, ::bind(listener, reinterpret_cast<sockaddr*>(&address), length));
    ASSERT_EQ(0, ::listen(listener, 0));
    ASSERT_EQ(0, ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length));
    TestReactor test;
    test.run([&](UringReactor& reactor) -> Task<void> {
        const Address to{"127.0.0.1", ntohs(address.sin_port)};
        std::vector<ConnectionPointer> held;
        bool timed_out = false;
        for (int i = 0; i < 8 && !timed_out; ++i) {
            const Nanos start = reactor.fresh_now();
            auto connected = co_await reactor.connect(to, 50 * milliseconds);
            if (connected) {
                held.push_back(std::move(*connected));
                continue;
            }
            timed_out = true;
            EXPECT_EQ(connected.error().code, Errc::timed_out);
            EXPECT_LT(reactor.fresh_now() - start, seconds);
        }
        EXPECT_TRUE(timed_out);
    });
    ::close(listener);
}

TEST(UringNetwork, ShutDownEndsOperationsInFlight) {
    TestReactor test;
    test.run([](UringReactor& reactor) -> Task<void> {
        const Address any{"127.0.0.1", 0};
        auto listener = reactor.listen(any);
        CO_ASSERT(listener);
        auto connected = co_await reactor.connect((*listener)->local(), seconds);
        CO_ASSERT(connected);
        auto accepted = co_await (*listener)->accept();
        CO_ASSERT(accepted);
        int ended = 0;
        const auto receiver = [](Connection& connection, int& count) -> Task<void> {
            std::byte memory[64];
            auto received = co_await connection.receive(memory);
            EXPECT_FALSE(received);
            ++count;
        };
        const auto sender = [](Connection& connection, int& count) -> Task<void> {
            std::vector<std::byte> much(64uz << 20);  // nobody reads it
            auto sent = co_await connection.send(much);
            EXPECT_FALSE(sent);
            ++count;
        };
        const auto acceptor = [](Listener& waiting, int& count) -> Task<void> {
            auto never_comes = co_await waiting.accept();
            EXPECT_EQ(never_comes.error().code, Errc::cancelled);
            ++count;
        };
        reactor.spawn(receiver(**connected, ended));
        reactor.spawn(sender(**connected, ended));
        reactor.spawn(acceptor(**listener, ended));
        co_await sleep_for(20 * milliseconds);
        EXPECT_EQ(ended, 0);
        (*connected)->shut_down();
        (*connected)->shut_down();
        (*listener)->shut_down();
        for (int i = 0; i < 1000 && ended < 3; ++i) co_await sleep_for(milliseconds);
        EXPECT_EQ(ended, 3);
        // The peer sees what was sent, then the end.
        std::vector<std::byte> memory(1uz << 20);
        size_t total = 0;
        size_t last = 1;
        while (last > 0) {
            auto received = co_await (*accepted)->receive(memory);
            last = received ? *received : 0;
            total += last;
        }
        EXPECT_GT(total, 0u);
        auto after = co_await (*connected)->send(Bytes(memory).first(1));
        EXPECT_FALSE(after);
    });
}

TEST(UringNetwork, EndsWhileOperationsAreInFlight) {
    TestReactor test;
    const auto body = [](UringReactor& reactor) -> Task<void> {
        const Address any{"127.0.0.1", 0};
        auto listener = reactor.listen(any);
        CO_ASSERT(listener);
        reactor.spawn(serve_echo(reactor, **listener));
        auto connected = co_await reactor.connect((*listener)->local(), seconds);
        CO_ASSERT(connected);
        co_await sleep_for(5 * milliseconds);
        reactor.stop();
        std::byte memory[64];
        auto received = co_await (*connected)->receive(memory);
        EXPECT_FALSE(received);
    };
    test->spawn(body(*test));
    test->run();
}

}  // namespace
}  // namespace pf::runtime
