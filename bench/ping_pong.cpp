// A TCP loopback ping-pong between two threads with blocking sockets: the latency of the road
// itself, and with --stream its bandwidth. A baseline: it uses nothing of ours.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void die(const char* what) {
    std::perror(what);
    std::exit(1);
}

bool read_all(int fd, std::vector<char>& buffer) {
    for (size_t have = 0; have < buffer.size();) {
        const ssize_t got = ::recv(fd, buffer.data() + have, buffer.size() - have, 0);
        if (got <= 0) return false;
        have += static_cast<size_t>(got);
    }
    return true;
}

bool write_all(int fd, const std::vector<char>& buffer) {
    for (size_t done = 0; done < buffer.size();) {
        const ssize_t put = ::send(fd, buffer.data() + done, buffer.size() - done, MSG_NOSIGNAL);
        if (put <= 0) return false;
        done += static_cast<size_t>(put);
    }
    return true;
}

// A connected pair over 127.0.0.1.
void connect_pair(int& client, int& server) {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    if (::bind(listener, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
        ::listen(listener, 1) != 0 ||
        ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
        die("listen");
    }
    client = ::socket(AF_INET, SOCK_STREAM, 0);
    if (::connect(client, reinterpret_cast<sockaddr*>(&address), length) != 0) die("connect");
    server = ::accept(listener, nullptr, nullptr);
    ::close(listener);
    const int one = 1;
    for (const int fd : {client, server})
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

double percentile_us(std::vector<uint32_t>& sorted_ns, double share) {
    const auto index = static_cast<size_t>(share * static_cast<double>(sorted_ns.size() - 1));
    return sorted_ns[index] / 1000.0;
}

}  // namespace

int main(int argc, char** argv) {
    size_t bytes = 4096;
    double seconds = 3;
    bool stream = false;
    for (int i = 1; i < argc; ++i) {
        const std::string_view option = argv[i];
        if (option == "--stream") stream = true;
        if (option == "--bytes" && i + 1 < argc) bytes = std::strtoull(argv[++i], nullptr, 10);
        if (option == "--seconds" && i + 1 < argc) seconds = std::strtod(argv[++i], nullptr);
    }
    int client = -1, server = -1;
    connect_pair(client, server);
    std::thread echo([&] {
        std::vector<char> buffer(bytes);
        while (read_all(server, buffer)) {
            if (!stream && !write_all(server, buffer)) break;
        }
    });

    std::vector<char> buffer(bytes, 'x');
    std::vector<uint32_t> latencies_ns;
    latencies_ns.reserve(1u << 20);
    const auto begin = Clock::now();
    double elapsed = 0;
    uint64_t rounds = 0;
    while (elapsed < seconds) {
        const auto start = Clock::now();
        if (!write_all(client, buffer)) die("send");
        if (!stream && !read_all(client, buffer)) die("receive");
        const auto end = Clock::now();
        latencies_ns.push_back(static_cast<uint32_t>((end - start).count()));
        elapsed = std::chrono::duration<double>(end - begin).count();
        ++rounds;
    }
    ::shutdown(client, SHUT_RDWR);
    echo.join();
    std::sort(latencies_ns.begin(), latencies_ns.end());
    const auto rate = static_cast<double>(rounds) / elapsed;
    std::printf(
        "{\"ios\": %llu, \"iops\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"bytes_per_s\": "
        "%.0f}\n",
        static_cast<unsigned long long>(rounds), rate, percentile_us(latencies_ns, 0.5),
        percentile_us(latencies_ns, 0.99), rate * static_cast<double>(bytes));
    ::close(client);
    ::close(server);
    return 0;
}
