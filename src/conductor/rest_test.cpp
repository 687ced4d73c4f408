// Goal: the REST server and docs/reference/openapi.yaml name the same operations, and the way from
// its threads to the reactor keeps its bounds. (The bodies are held against the file by
// tests/system/openapi_test.py, on real processes.)
#include "conductor/rest.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/log.hpp"
#include "conductor/fake_stores.hpp"
#include "conductor/rest_json.hpp"
#include "meta/memory_engine.hpp"
#include "meta/test_reactor.hpp"
#include "net/http/metrics_text.hpp"

namespace pf::conductor {
namespace {

using runtime::Task;

struct Rig {
    Rig() {
        net::HttpOptions options;
        options.listen = {"127.0.0.1", 0};
        auto made = net::HttpServer::create(options);
        PF_ASSERT(made.has_value());
        http = std::move(*made);
        add_rest_routes(*http, gate, core);
    }
    meta::TestReactor reactor;
    meta::MemoryStore keys;
    meta::MemoryEngine engine{reactor, keys};
    FakeStores stores;
    Core core{reactor, engine, stores, CoreOptions{}};
    net::ReactorGate gate{reactor, 2, 1};
    std::unique_ptr<net::HttpServer> http;
};

// "GET /v1/volumes" of the file. It is written so that lines and indents are enough to read it:
// paths at two spaces, methods at four.
std::set<std::string> operations_of_the_file() {
    std::ifstream file(PF_OPENAPI_FILE);
    EXPECT_TRUE(file) << PF_OPENAPI_FILE;
    std::set<std::string> out;
    std::string path;
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("  /")) path = line.substr(2, line.size() - 3);
        if (line.starts_with("components:")) break;
        for (const auto* method : {"get", "post", "put", "patch", "delete"}) {
            if (line != fmt::format("    {}:", method)) continue;
            std::string upper = method;
            for (char& c : upper) c = static_cast<char>(c - 'a' + 'A');
            out.insert(fmt::format("{} {}", upper, path));
        }
    }
    return out;
}

TEST(Rest, EveryRouteIsInTheFileAndTheOtherWayRound) {
    const Rig rig;
    std::set<std::string> routes;
    for (const auto& route : rig.http->routes()) {
        EXPECT_TRUE(routes.insert(route.method + " " + route.pattern).second);
    }
    EXPECT_EQ(routes, operations_of_the_file());
    EXPECT_GT(routes.size(), 10u);
}

TEST(Rest, ListensOnLoopbackOnlyUnlessToldOtherwise) {
    net::HttpOptions options;
    options.listen = {"0.0.0.0", 0};
    const auto refused = net::HttpServer::create(options);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("--insecure-listen"), std::string::npos);
    options.insecure_listen = true;
    EXPECT_TRUE(net::HttpServer::create(options));
}

// A connection that sent this; the descriptor.
int connect_and_send(const runtime::Address& to, std::string_view text) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(to.port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const bool connected =
        ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    EXPECT_TRUE(connected);
    EXPECT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
    return fd;
}

// What comes back until the server closes; with 10 s of patience for each part.
std::string answer_to(const runtime::Address& to, std::string_view text) {
    const int fd = connect_and_send(to, text);
    const timeval patience{10, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    std::string answer;
    std::array<char, 1024> part{};
    for (ssize_t got; (got = ::recv(fd, part.data(), part.size(), 0)) > 0;) {
        answer.append(part.data(), static_cast<size_t>(got));
    }
    ::close(fd);
    return answer;
}

// Found by audit: `curl -X POST` without data sends no Content-Length, and was refused with 400.
TEST(Rest, regression_no_content_length_is_an_empty_body) {
    net::HttpOptions options;
    options.listen = {"127.0.0.1", 0};
    auto server = net::HttpServer::create(options);
    ASSERT_TRUE(server);
    for (const char* method : {"POST", "PUT", "PATCH", "DELETE"}) {
        (*server)->route(method, "/x", [](const net::HttpRequest& request) {
            return net::HttpResponse{
                200, "text/plain",
                request.method + " of " + std::to_string(request.body.size()) + " bytes"};
        });
    }
    (*server)->start();
    for (const std::string method : {"POST", "PUT", "PATCH", "DELETE"}) {
        const std::string head = method + " /x?a=b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
        std::string answer = answer_to((*server)->local(), head + "\r\n");
        EXPECT_TRUE(answer.ends_with(method + " of 0 bytes")) << answer;
        answer = answer_to((*server)->local(), head + "Content-Length: 3\r\n\r\nabc");
        EXPECT_TRUE(answer.ends_with(method + " of 3 bytes")) << answer;
    }
    const std::string chunked =
        answer_to((*server)->local(),
                  "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                  "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    EXPECT_TRUE(chunked.ends_with("POST of 3 bytes")) << chunked;
    const std::string refused = answer_to(
        (*server)->local(), "OPTIONS /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    EXPECT_TRUE(refused.starts_with("HTTP/1.1 405")) << refused;
    (*server)->stop();
}

// Found by hand: 64 connections with half a request stopped REST, metrics and health for half a
// minute.
TEST(Rest, regression_half_requests_do_not_stop_health_checks) {
    set_log_level(LogLevel::off);
    net::HttpOptions options;
    options.listen = {"127.0.0.1", 0};
    auto server = net::HttpServer::create(options);
    ASSERT_TRUE(server);
    (*server)->route("GET", "/healthz", [](const net::HttpRequest&) {
        return net::HttpResponse{200, "text/plain", "fine"};
    });
    (*server)->start();
    std::vector<int> halves(64);
    for (int& half : halves)
        half = connect_and_send((*server)->local(), "GET /healthz HTTP/1.1\r\nHost: a\r\n");
    const std::string answer = answer_to(
        (*server)->local(), "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200")) << answer;
    for (const int half : halves) ::close(half);
    (*server)->stop();
}

TEST(Rest, regression_a_field_given_twice_is_refused_by_name) {
    const auto message = [](const auto& parsed) {
        return parsed ? std::string("accepted") : parsed.error().message;
    };
    EXPECT_NE(message(parse_create_volume(R"({"name":"v","size_bytes":4096,"size_bytes":8192})"))
                  .find("'size_bytes' is given twice"),
              std::string::npos);
    EXPECT_NE(
        message(parse_volume_change(R"({"name":"a","name":"a"})")).find("'name' is given twice"),
        std::string::npos);
    EXPECT_NE(message(parse_new_tray(R"({"force":false,"path":"/x","force":true})"))
                  .find("'force' is given twice"),
              std::string::npos);
    // The same name further inside is another field.
    EXPECT_NE(message(parse_new_tray(R"({"path":{"path":1}})")).find("must be a string"),
              std::string::npos);
}

// The handler answers on this thread what it refuses; what it takes would wait for the reactor.
TEST(Rest, regression_a_parameter_that_is_unknown_or_given_twice_is_refused_by_name) {
    set_log_level(LogLevel::off);
    Rig rig;
    rig.gate.close();
    rig.http->start();
    const auto answer = [&](const std::string& line, const std::string& more = "\r\n") {
        return answer_to(rig.http->local(),
                         line + " HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + more);
    };
    for (const auto* line :
         {"DELETE /v1/volumes/v?forse=true", "DELETE /v1/trays/x?force=true&forse=1",
          "GET /v1/volumes?limit=1&forse", "POST /v1/volumes/v/accept-loss?forse=true",
          "POST /v1/volumes?forse=true", "GET /v1/status?forse=%26"}) {
        const std::string refused = answer(line);
        EXPECT_TRUE(refused.starts_with("HTTP/1.1 400")) << line << refused;
        EXPECT_NE(refused.find("unknown parameter 'forse'"), std::string::npos) << refused;
    }
    for (const auto* line : {"DELETE /v1/volumes/v?force=false&force=true",
                             "DELETE /v1/volumes/v?force=true&&f%6Frce=true"}) {
        const std::string twice = answer(line);
        EXPECT_TRUE(twice.starts_with("HTTP/1.1 400")) << twice;
        EXPECT_NE(twice.find("parameter 'force' is given twice"), std::string::npos) << twice;
    }
    // A body that is labelled as a form has no parameters: curl labels every body so.
    const std::string form =
        answer("POST /v1/volumes",
               "Content-Type: application/x-www-form-urlencoded\r\n"
               "Content-Length: 30\r\n\r\n{\"name\":\"v\",\"size_bytes\":4096}");
    EXPECT_NE(form.find("the daemon is stopping"), std::string::npos) << form;
    rig.http->stop();
}

Task<net::HttpResponse> answer_after(runtime::Nanos time, bool& ran) {
    co_await runtime::sleep_for(time);
    ran = true;
    co_return net::HttpResponse{200, "text/plain", "done"};
}

TEST(ReactorGate, BoundsCallsAndTheirTime) {
    set_log_level(LogLevel::off);
    Rig rig;
    bool ran = false;
    std::atomic<int> finished = 0;
    std::vector<net::HttpResponse> answers(3);
    const auto slow = [&](size_t index) {
        answers[index] =
            rig.gate.call([&] { return answer_after(1500 * runtime::milliseconds, ran); });
        ++finished;
    };
    std::thread first(slow, 0);
    std::thread second(slow, 1);
    std::thread third([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        answers[2] = rig.gate.call([&] { return answer_after(0, ran); });
        ++finished;
    });
    rig.reactor.loop([&] { return finished == 3; });
    EXPECT_EQ(answers[0].status, 504);
    EXPECT_EQ(answers[1].status, 504);
    EXPECT_EQ(answers[2].status, 503) << "a third call at once";
    EXPECT_FALSE(ran);
    // The work goes on, and idle() waits for it.
    rig.gate.close();
    rig.reactor.run(rig.gate.idle());
    EXPECT_TRUE(ran);
    first.join();
    second.join();
    third.join();
    EXPECT_EQ(rig.gate.call([&] { return answer_after(0, ran); }).status, 503);
}

TEST(Rest, JsonKeeps64Bits) {
    v1::Volume volume;
    volume.set_id(UINT64_MAX);
    volume.set_name("bytes \xff that are no UTF-8");
    volume.set_size_bytes(uint64_t{1} << 53 | 1);
    const auto json = nlohmann::json::parse(to_text(to_json(volume)));
    EXPECT_EQ(json["id"].get<uint64_t>(), UINT64_MAX);
    EXPECT_EQ(json["size_bytes"].get<uint64_t>(), uint64_t{1} << 53 | 1);
    const auto parsed = parse_create_volume(R"({"name":"v","size_bytes":9007199254740993})");
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->size_bytes(), 9007199254740993u);
}

TEST(Rest, ASizeOfZeroIsNotTheDefault) {
    EXPECT_TRUE(parse_create_volume(R"({"name":"v","size_bytes":4096})"));
    EXPECT_TRUE(parse_new_tray(R"({"path":"/x"})"));
    const auto volume = parse_create_volume(R"({"name":"v","size_bytes":4096,"shard_bytes":0})");
    ASSERT_FALSE(volume);
    EXPECT_NE(volume.error().message.find("'shard_bytes' is 0"), std::string::npos);
    const auto tray = parse_new_tray(R"({"path":"/x","create_bytes":0})");
    ASSERT_FALSE(tray);
    EXPECT_NE(tray.error().message.find("'create_bytes' is 0"), std::string::npos);
}

TEST(Metrics, TextHasSecondsAndCumulativeBuckets) {
    MetricsPage page;
    LatencyHistogram histogram;
    histogram.record(5'000);
    histogram.record(50'000'000);
    histogram.record(uint64_t{1} << 45);
    page.histogram("pureflash_io_duration_seconds", "I/O.", {{"op", "read"}}, histogram);
    page.counter("pureflash_reads_total", "Reads.", {}, 7);
    const std::string text = net::metrics_text(page);
    EXPECT_NE(text.find("pureflash_io_duration_seconds_count{op=\"read\"} 3"), std::string::npos);
    EXPECT_NE(text.find("pureflash_io_duration_seconds_bucket{op=\"read\",le=\"+Inf\"} 3"),
              std::string::npos)
        << text;
    EXPECT_NE(text.find("pureflash_reads_total 7"), std::string::npos);
}

}  // namespace
}  // namespace pf::conductor
