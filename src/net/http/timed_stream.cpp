#include "net/http/timed_stream.hpp"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

namespace pf::net {

namespace {

void describe(const sockaddr_storage& address, std::string& ip, int& port) {
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (address.ss_family == AF_INET6) {
        const auto& six = reinterpret_cast<const sockaddr_in6&>(address);
        ::inet_ntop(AF_INET6, &six.sin6_addr, text.data(), text.size());
        port = ntohs(six.sin6_port);
    } else {
        const auto& four = reinterpret_cast<const sockaddr_in&>(address);
        ::inet_ntop(AF_INET, &four.sin_addr, text.data(), text.size());
        port = ntohs(four.sin_port);
    }
    ip = text.data();
}

}  // namespace

bool TimedStream::wait(short events, std::chrono::milliseconds most,
                       Clock::time_point until) const {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    const auto patience = std::min(most, left);
    if (patience.count() <= 0) return false;
    pollfd one{fd_, events, 0};
    int ready = 0;
    do {
        ready = ::poll(&one, 1, static_cast<int>(patience.count()));
    } while (ready < 0 && errno == EINTR);
    return ready > 0;
}

bool TimedStream::begin_request(std::chrono::milliseconds patience) {
    answering_ = false;
    const auto now = Clock::now();
    const bool begun = begin_ < end_ || wait(POLLIN, patience, now + patience);
    request_until_ = Clock::now() + limits_.request;
    request_left_ = limits_.request_bytes;
    return begun;
}

bool TimedStream::is_readable() const {
    return begin_ < end_ || wait(POLLIN, limits_.idle, request_until_);
}

// The answer's time counts from its first byte: until then the handler was at work.
bool TimedStream::is_writable() const {
    return wait(POLLOUT, limits_.stalled,
                answering_ ? answer_until_ : Clock::now() + limits_.answer);
}

ssize_t TimedStream::read(char* to, size_t size) {
    if (begin_ == end_) {
        broken_ = broken_ || !is_readable();
        if (broken_) return -1;
        const ssize_t got = ::recv(fd_, buffer_.data(), buffer_.size(), 0);
        if (got <= 0) return got;
        begin_ = 0;
        end_ = static_cast<size_t>(got);
    }
    broken_ = broken_ || request_left_ == 0;
    if (broken_) return -1;
    const size_t count = std::min({size, end_ - begin_, request_left_});
    request_left_ -= count;
    std::copy_n(buffer_.data() + begin_, count, to);
    begin_ += count;
    return static_cast<ssize_t>(count);
}

ssize_t TimedStream::write(const char* from, size_t size) {
    if (!answering_) answer_until_ = Clock::now() + limits_.answer;
    answering_ = true;
    // All of it, since httplib does not look; without blocking, which would know no limit.
    size_t sent = 0;
    while (sent < size) {
        if (!is_writable()) return -1;
        const ssize_t more = ::send(fd_, from + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (more < 0 && errno != EAGAIN && errno != EINTR) return -1;
        if (more > 0) sent += static_cast<size_t>(more);
    }
    return static_cast<ssize_t>(size);
}

void TimedStream::get_remote_ip_and_port(std::string& ip, int& port) const {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (::getpeername(fd_, reinterpret_cast<sockaddr*>(&address), &length) == 0)
        describe(address, ip, port);
}

void TimedStream::get_local_ip_and_port(std::string& ip, int& port) const {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    if (::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length) == 0)
        describe(address, ip, port);
}

}  // namespace pf::net
