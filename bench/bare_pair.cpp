// The bare pair: the least that a client and a server can do over loopback TCP with io_uring.
// 64-byte headers, receives into one large buffer, all sends of a loop turn in one call, direct I/O
// on the file, one copy where the bytes are not where they are wanted; no checksums, no metadata,
// no runtime. It is the limit that our programs are measured against.
#include <fcntl.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "pair.hpp"

namespace {

using pair::die;
using pair::Header;
using pair::Options;

constexpr uint64_t tag_receive = ~uint64_t{0};
constexpr uint64_t tag_send = ~uint64_t{1};

class AlignedMemory {
  public:
    explicit AlignedMemory(size_t bytes) : bytes_(bytes) {
        void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (memory == MAP_FAILED) die("mmap", errno);
        data_ = static_cast<char*>(memory);
    }
    ~AlignedMemory() { ::munmap(data_, bytes_); }
    [[nodiscard]] char* data() const { return data_; }

  private:
    size_t bytes_;
    char* data_;
};

// A ring, a socket, a receive buffer, and what waits to be sent.
class Endpoint {
  public:
    Endpoint(int socket, const Options& options)
        : options_(options),
          socket_(socket),
          buffer_bytes_(std::max<size_t>(256 * 1024, 2 * size_t{options.block} + 4096)),
          buffer_(buffer_bytes_),
          slots_(size_t{options.depth} * options.block),
          headers_(options.depth) {
        io_uring_params params{};
        params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
        if (const int made = io_uring_queue_init_params(2048, &ring_, &params); made < 0) {
            die("io_uring", -made);
        }
        const iovec arena{slots_.data(), size_t{options.depth} * options.block};
        if (io_uring_register_buffers(&ring_, &arena, 1) < 0) die("register buffers", errno);
        io_uring_register_ring_fd(&ring_);
        pending_.reserve(2 * size_t{options.depth});
        sending_.reserve(2 * size_t{options.depth});
    }
    ~Endpoint() { io_uring_queue_exit(&ring_); }
    Endpoint(const Endpoint&) = delete;
    Endpoint& operator=(const Endpoint&) = delete;

  protected:
    [[nodiscard]] char* slot(uint32_t tag) const {
        return slots_.data() + size_t{tag} * options_.block;
    }
    void queue_send(uint32_t tag, bool with_payload) {
        pending_.push_back({&headers_[tag], sizeof(Header)});
        if (with_payload) pending_.push_back({slot(tag), options_.block});
    }
    io_uring_sqe* sqe() {
        io_uring_sqe* entry = io_uring_get_sqe(&ring_);
        if (entry == nullptr) die("ring full", EBUSY);
        return entry;
    }
    void receive() {
        if (parsed_ == filled_) parsed_ = filled_ = 0;
        if (buffer_bytes_ - filled_ < buffer_bytes_ / 2) {
            std::memmove(buffer_.data(), buffer_.data() + parsed_, filled_ - parsed_);
            filled_ -= parsed_;
            parsed_ = 0;
        }
        io_uring_sqe* entry = sqe();
        io_uring_prep_recv(entry, socket_, buffer_.data() + filled_, buffer_bytes_ - filled_, 0);
        io_uring_sqe_set_data64(entry, tag_receive);
    }
    // All that the turn gathered goes out in one call.
    void send_pending() {
        if (send_in_flight_ || pending_.empty()) return;
        sending_.swap(pending_);
        pending_.clear();
        sent_ = 0;
        submit_send();
    }
    void submit_send() {
        message_.msg_iov = sending_.data() + sent_;
        message_.msg_iovlen = std::min<size_t>(sending_.size() - sent_, 1024);
        sent_ += message_.msg_iovlen;
        io_uring_sqe* entry = sqe();
        io_uring_prep_sendmsg(entry, socket_, &message_, MSG_WAITALL | MSG_NOSIGNAL);
        io_uring_sqe_set_data64(entry, tag_send);
        send_in_flight_ = true;
    }
    void send_done(int result) {
        if (result < 0) die("send", -result);
        send_in_flight_ = false;
        if (sent_ < sending_.size()) submit_send();
    }
    // The next whole message at hand, or nullptr.
    const Header* next_message() {
        if (filled_ - parsed_ < sizeof(Header)) return nullptr;
        const auto* header = reinterpret_cast<const Header*>(buffer_.data() + parsed_);
        if (filled_ - parsed_ < sizeof(Header) + header->payload) return nullptr;
        parsed_ += sizeof(Header) + header->payload;
        return header;
    }
    void wait() {
        const int submitted = io_uring_submit_and_wait(&ring_, 1);
        if (submitted < 0 && submitted != -EINTR) die("io_uring_enter", -submitted);
    }

    const Options& options_;
    int socket_;
    io_uring ring_{};
    size_t buffer_bytes_;
    AlignedMemory buffer_;
    AlignedMemory slots_;
    std::vector<Header> headers_;
    size_t parsed_ = 0;
    size_t filled_ = 0;
    std::vector<iovec> pending_;
    std::vector<iovec> sending_;
    size_t sent_ = 0;
    bool send_in_flight_ = false;
    msghdr message_{};
};

class Server : Endpoint {
  public:
    Server(int socket, int file, const Options& options) : Endpoint(socket, options) {
        if (io_uring_register_files(&ring_, &file, 1) < 0) die("register file", errno);
    }
    void run() {
        receive();
        bool open = true;
        while (open) {
            wait();
            io_uring_cqe* cqe = nullptr;
            unsigned head = 0;
            unsigned count = 0;
            io_uring_for_each_cqe(&ring_, head, cqe) {
                ++count;
                if (cqe->user_data == tag_receive) {
                    if (cqe->res <= 0) {
                        open = false;
                        continue;
                    }
                    filled_ += static_cast<size_t>(cqe->res);
                    while (const Header* request = next_message()) start(*request);
                    receive();
                } else if (cqe->user_data == tag_send) {
                    send_done(cqe->res);
                } else {
                    finish(static_cast<uint32_t>(cqe->user_data), cqe->res);
                }
            }
            io_uring_cq_advance(&ring_, count);
            send_pending();
        }
    }

  private:
    void start(const Header& request) {
        io_uring_sqe* entry = sqe();
        if (request.operation == 1) {
            std::memcpy(slot(request.tag), &request + 1, request.payload);
            io_uring_prep_write_fixed(entry, 0, slot(request.tag), options_.block, request.offset,
                                      0);
        } else {
            io_uring_prep_read_fixed(entry, 0, slot(request.tag), options_.block, request.offset,
                                     0);
        }
        entry->flags |= IOSQE_FIXED_FILE;
        io_uring_sqe_set_data64(entry, request.tag);
    }
    void finish(uint32_t tag, int result) {
        if (result != static_cast<int>(options_.block)) die("disk", result < 0 ? -result : EIO);
        Header& answer = headers_[tag];
        answer = Header{};
        answer.operation = 2;
        answer.tag = tag;
        answer.payload = options_.write ? 0 : options_.block;
        queue_send(tag, !options_.write);
    }
};

class Client : Endpoint {
  public:
    Client(int socket, const Options& options)
        : Endpoint(socket, options), started_(options.depth) {}
    void run(pair::Histogram& latency) {
        receive();
        const uint64_t end = pair::now_ns() + static_cast<uint64_t>(options_.seconds * 1e9);
        for (uint32_t tag = 0; tag < options_.depth; ++tag) start(tag, pair::now_ns());
        send_pending();
        uint32_t outstanding = options_.depth;
        while (outstanding > 0) {
            wait();
            const uint64_t now = pair::now_ns();
            io_uring_cqe* cqe = nullptr;
            unsigned head = 0;
            unsigned count = 0;
            io_uring_for_each_cqe(&ring_, head, cqe) {
                ++count;
                if (cqe->user_data == tag_send) {
                    send_done(cqe->res);
                    continue;
                }
                if (cqe->res <= 0) die("receive", -cqe->res);
                filled_ += static_cast<size_t>(cqe->res);
                while (const Header* answer = next_message()) {
                    // The user wants the bytes in memory of his own.
                    if (answer->payload > 0)
                        std::memcpy(slot(answer->tag), answer + 1, answer->payload);
                    latency.add(now - started_[answer->tag]);
                    if (now < end) {
                        start(answer->tag, now);
                    } else {
                        --outstanding;
                    }
                }
                receive();
            }
            io_uring_cq_advance(&ring_, count);
            send_pending();
        }
    }

  private:
    void start(uint32_t tag, uint64_t now) {
        random_ ^= random_ << 13;
        random_ ^= random_ >> 7;
        random_ ^= random_ << 17;
        Header& request = headers_[tag];
        request = Header{};
        request.operation = options_.write ? 1 : 0;
        request.tag = tag;
        request.offset = random_ % (options_.size / options_.block) * options_.block;
        request.payload = options_.write ? options_.block : 0;
        started_[tag] = now;
        queue_send(tag, options_.write);
    }
    std::vector<uint64_t> started_;
    uint64_t random_ = 0x9e3779b97f4a7c15;
};

void connect_pair(int& client, int& server) {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener, raw, length) != 0 || ::listen(listener, 1) != 0 ||
        ::getsockname(listener, raw, &length) != 0) {
        die("listen", errno);
    }
    client = ::socket(AF_INET, SOCK_STREAM, 0);
    if (::connect(client, raw, length) != 0) die("connect", errno);
    server = ::accept(listener, nullptr, nullptr);
    if (server < 0) die("accept", errno);
    ::close(listener);
    const int one = 1;
    for (const int fd : {client, server}) {
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = pair::parse(argc, argv);
    const int file = ::open(options.file.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    if (file < 0) die(options.file.c_str(), errno);
    int client_socket = -1;
    int server_socket = -1;
    connect_pair(client_socket, server_socket);
    std::thread server_thread([&] { Server(server_socket, file, options).run(); });
    pair::Histogram latency;
    Client client(client_socket, options);
    pair::CpuWatch cpu;
    client.run(latency);
    cpu.stop();
    ::shutdown(client_socket, SHUT_RDWR);
    server_thread.join();
    pair::report(options, latency, cpu);
    return 0;
}
