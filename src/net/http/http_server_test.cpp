// Goal: the HTTP server keeps its bounds of time whatever a client does. Method: real sockets.
#include "net/http/http_server.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <thread>

#include "base/log.hpp"

namespace pf::net {
namespace {

constexpr size_t large_bytes = size_t{8} << 20;

class HttpServerTest : public ::testing::Test {
  public:
    HttpServerTest() {
        set_log_level(LogLevel::off);
        HttpOptions options;
        options.listen = {"127.0.0.1", 0};
        server = std::move(*HttpServer::create(options));
        server->route("GET", "/healthz",
                      [](const HttpRequest&) { return HttpResponse{200, "text/plain", "fine"}; });
        server->route("GET", "/large", [](const HttpRequest&) {
            return HttpResponse{200, "text/plain", std::string(large_bytes, 'x')};
        });
        server->route("POST", "/echo", [](const HttpRequest& request) {
            return HttpResponse{200, "text/plain", request.body};
        });
        server->start();
    }
    ~HttpServerTest() override { server->stop(); }

    [[nodiscard]] int connect_and_send(std::string_view text) const {
        const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(server->local().port);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
        EXPECT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(text.size()));
        return fd;
    }
    // Until the server closes, or says nothing for 20 s.
    static std::string receive_all(int fd) {
        const timeval patience{20, 0};
        ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        std::string all;
        std::array<char, 65536> part{};
        for (ssize_t got = 1; got > 0;) {
            got = ::recv(fd, part.data(), part.size(), 0);
            if (got > 0) all.append(part.data(), static_cast<size_t>(got));
        }
        ::close(fd);
        return all;
    }

    std::unique_ptr<HttpServer> server;
};

// More connections than threads send a byte now and then, half of them of a head, half of a body.
TEST_F(HttpServerTest, regression_requests_byte_by_byte_do_not_stop_health_checks) {
    std::vector<int> drips(64);
    for (size_t i = 0; i < drips.size(); ++i) {
        drips[i] =
            connect_and_send(i % 2 == 0 ? "GET /healthz HTTP/1.1\r\nX-Slow: "
                                        : "POST /echo HTTP/1.1\r\nContent-Length: 100000\r\n\r\n");
    }
    std::atomic<bool> over = false;
    std::thread dripping([&] {
        while (!over) {
            for (const int fd : drips) (void)::send(fd, "a", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
        }
    });
    const std::string answer = receive_all(
        connect_and_send("GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200")) << answer;
    over = true;
    dripping.join();
    for (const int fd : drips) ::close(fd);
}

TEST_F(HttpServerTest, AnswersSeveralRequestsOfAConnectionAndLargeOnes) {
    const int fd = connect_and_send(
        "POST /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\none"
        "GET /large HTTP/1.1\r\nConnection: close\r\n\r\n");
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // its answer does not fit at once
    const std::string answers = receive_all(fd);
    EXPECT_NE(answers.find("\r\n\r\none"), std::string::npos);
    EXPECT_TRUE(answers.ends_with(std::string(large_bytes, 'x')));
}

// Failed: all that came in 3 s was kept, 2 GB of one connection.
TEST_F(HttpServerTest, regression_a_request_without_a_stated_length_is_bounded) {
    const std::string chunk = "10000\r\n" + std::string(65536, 'a') + "\r\n";
    for (const std::string head : {"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                                   "POST /echo HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
                                   "GET /healthz HTTP/1.1\r\n"}) {
        const int fd = connect_and_send(head);
        const std::string part = head.starts_with("GET") ? std::string("a: b\r\n") : chunk;
        size_t taken = 0;
        constexpr size_t most = size_t{64} << 20;
        for (ssize_t sent = 1; sent > 0 && taken < most; taken += part.size())
            sent = ::send(fd, part.data(), part.size(), MSG_NOSIGNAL);
        EXPECT_LT(taken, most) << head;
        ::close(fd);
    }
    std::string body;
    for (int i = 0; i < 20; ++i) body += chunk;
    const std::string answer = receive_all(connect_and_send(
        "POST /echo HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + body +
        "0\r\n\r\n"));
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 413")) << answer.substr(0, 80);
    const std::string small = receive_all(connect_and_send(
        "POST /echo HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\none\r\n0\r\n\r\n"));
    EXPECT_TRUE(small.ends_with("\r\n\r\none")) << small;
}

// Failed: it was unpacked, 1 MiB to 1 GiB.
TEST_F(HttpServerTest, regression_a_packed_body_is_refused) {
    const std::string answer = receive_all(
        connect_and_send("POST /echo HTTP/1.1\r\nConnection: close\r\nContent-Encoding: gzip\r\n"
                         "Content-Length: 3\r\n\r\none"));
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 415")) << answer;
}

}  // namespace
}  // namespace pf::net
