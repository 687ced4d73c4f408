// A connection as cpp-httplib wants it, with limits on the time of a whole request and a whole
// answer: its own are for each byte, so that a peer who drips them holds a thread for ever. And
// with one on the bytes of a request: its own is for a body of stated length only.
#pragma once

#include <httplib.h>

#include <array>
#include <chrono>

namespace pf::net {

struct StreamLimits {
    std::chrono::milliseconds idle{1000};      // without a byte of a request
    std::chrono::milliseconds request{3000};   // its head and body
    std::chrono::milliseconds stalled{5000};   // without room for a byte of the answer
    std::chrono::milliseconds answer{30'000};  // all of it
    size_t request_bytes = SIZE_MAX;           // its head and body
};

class TimedStream final : public httplib::Stream {
  public:
    TimedStream(int fd, const StreamLimits& limits) : fd_(fd), limits_(limits) {}

    // Waits for the first byte of the next request, from which on its time counts.
    [[nodiscard]] bool begin_request(std::chrono::milliseconds patience);

    // A request did not arrive in time, or is too large: what comes after it cannot be told from
    // its rest.
    [[nodiscard]] bool broken() const { return broken_; }

    [[nodiscard]] bool is_readable() const override;
    [[nodiscard]] bool is_writable() const override;
    ssize_t read(char* to, size_t size) override;
    ssize_t write(const char* from, size_t size) override;
    void get_remote_ip_and_port(std::string& ip, int& port) const override;
    void get_local_ip_and_port(std::string& ip, int& port) const override;
    [[nodiscard]] socket_t socket() const override { return fd_; }

  private:
    using Clock = std::chrono::steady_clock;
    // Until then, but no longer than `most` from now; false: not in time.
    [[nodiscard]] bool wait(short events, std::chrono::milliseconds most,
                            Clock::time_point until) const;

    int fd_;
    StreamLimits limits_;
    Clock::time_point request_until_{};
    Clock::time_point answer_until_{};
    bool answering_ = false;
    bool broken_ = false;
    size_t request_left_ = 0;
    // httplib reads heads byte by byte.
    std::array<char, 4096> buffer_{};
    size_t begin_ = 0;
    size_t end_ = 0;
};

}  // namespace pf::net
