// The job of the bare pair on our runtime: coroutines, the uring reactor, its disk and its streams,
// and nothing above them. The ratio to bare_pair is the price of the runtime.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "pair.hpp"
#include "runtime/sync.hpp"
#include "runtime/uring/reactor_thread.hpp"

namespace {

using pair::Header;
using pair::Options;
using namespace pf;           // NOLINT: a small program of its own
using namespace pf::runtime;  // NOLINT

void check(const Status& status, const char* what) {
    if (status) return;
    std::fprintf(stderr, "%s: %s\n", what, status.error().text().c_str());
    std::exit(1);
}

// Framing and batched sends over one connection.
class Endpoint {
  public:
    Endpoint(std::unique_ptr<Connection> connection, const Options& options)
        : options_(options), connection_(std::move(connection)), headers_(options.depth) {
        BufferPool& pool = Reactor::current().buffers();
        buffer_ = pool.try_allocate(std::max<size_t>(256 * 1024, 2 * size_t{options.block}));
        for (uint32_t i = 0; i < options.depth; ++i)
            slots_.push_back(pool.try_allocate(options.block));
        pending_.reserve(2 * size_t{options.depth});
        sending_.reserve(2 * size_t{options.depth});
    }

  protected:
    void queue_send(uint32_t tag, bool with_payload) {
        pending_.push_back({&headers_[tag], sizeof(Header)});
        if (with_payload) pending_.push_back({slots_[tag].data(), options_.block});
        to_send_.wake_one();
    }
    // All that one turn gathers goes out in one call.
    Task<void> send_loop() {
        while (!closed_) {
            if (pending_.empty()) {
                co_await to_send_.wait();
                continue;
            }
            co_await end_of_turn();
            sending_.swap(pending_);
            pending_.clear();
            for (size_t at = 0; at < sending_.size(); at += StreamOp::max_iovecs) {
                const size_t count = std::min<size_t>(sending_.size() - at, StreamOp::max_iovecs);
                auto sent =
                    co_await connection_->send(sending_.data() + at, static_cast<uint32_t>(count));
                if (!closed_) check(sent, "send");
            }
        }
        ended_.done();
    }
    // False at the end of the stream.
    Task<bool> receive_more() {
        if (parsed_ == filled_) parsed_ = filled_ = 0;
        if (buffer_.size() - filled_ < buffer_.size() / 2) {
            std::memmove(buffer_.data(), buffer_.data() + parsed_, filled_ - parsed_);
            filled_ -= parsed_;
            parsed_ = 0;
        }
        auto received = co_await connection_->receive(buffer_.bytes().subspan(filled_));
        if (!received || *received == 0) co_return false;
        filled_ += *received;
        co_return true;
    }
    const Header* next_message() {
        if (filled_ - parsed_ < sizeof(Header)) return nullptr;
        const auto* header = reinterpret_cast<const Header*>(buffer_.data() + parsed_);
        if (filled_ - parsed_ < sizeof(Header) + header->payload) return nullptr;
        parsed_ += sizeof(Header) + header->payload;
        return header;
    }
    void close() {
        closed_ = true;
        connection_->shut_down();
        to_send_.wake_all();
    }

    const Options& options_;
    std::unique_ptr<Connection> connection_;
    Buffer buffer_;
    std::vector<Buffer> slots_;
    std::vector<Header> headers_;
    size_t parsed_ = 0;
    size_t filled_ = 0;
    std::vector<iovec> pending_;
    std::vector<iovec> sending_;
    WaitQueue to_send_;
    WaitGroup ended_;
    bool closed_ = false;
};

class Server : Endpoint {
  public:
    Server(std::unique_ptr<Connection> connection, Disk& disk, const Options& options)
        : Endpoint(std::move(connection), options), disk_(disk) {}

    Task<void> run() {
        Reactor& reactor = Reactor::current();
        ended_.add();
        reactor.spawn(send_loop());
        while (true) {
            const bool more = co_await receive_more();
            if (!more) break;
            while (const Header* request = next_message()) {
                if (request->operation == 1) {
                    std::memcpy(slots_[request->tag].data(), request + 1, request->payload);
                }
                ended_.add();
                reactor.spawn(serve(request->tag, request->offset));
            }
        }
        close();
        co_await ended_.wait();
    }

  private:
    Task<void> serve(uint32_t tag, uint64_t offset) {
        if (options_.write) {
            auto written = co_await disk_.write(offset, slots_[tag].bytes());
            check(written, "write");
        } else {
            auto read = co_await disk_.read(offset, slots_[tag].bytes());
            check(read, "read");
        }
        Header& answer = headers_[tag];
        answer = Header{};
        answer.operation = 2;
        answer.tag = tag;
        answer.payload = options_.write ? 0 : options_.block;
        queue_send(tag, !options_.write);
        ended_.done();
    }
    Disk& disk_;
};

class Client : Endpoint {
  public:
    Client(std::unique_ptr<Connection> connection, const Options& options)
        : Endpoint(std::move(connection), options), waiting_(options.depth) {}

    Task<void> run(pair::Histogram& latency) {
        Reactor& reactor = Reactor::current();
        end_ = reactor.now() + static_cast<Nanos>(options_.seconds * 1e9);
        ended_.add();
        reactor.spawn(send_loop());
        ended_.add();
        reactor.spawn(receive_loop());
        WaitGroup users;
        users.add(options_.depth);
        for (uint32_t tag = 0; tag < options_.depth; ++tag) reactor.spawn(use(tag, latency, users));
        co_await users.wait();
        close();
        co_await ended_.wait();
    }

  private:
    // One I/O after the other, as an application with a queue depth of one.
    Task<void> use(uint32_t tag, pair::Histogram& latency, WaitGroup& users) {
        Reactor& reactor = Reactor::current();
        while (reactor.now() < end_) {
            const Nanos start = reactor.now();
            co_await transfer(tag);
            latency.add(reactor.now() - start);
        }
        users.done();
    }
    Task<void> transfer(uint32_t tag) {
        Header& request = headers_[tag];
        request = Header{};
        request.operation = options_.write ? 1 : 0;
        request.tag = tag;
        request.offset =
            Reactor::current().rng().below(options_.size / options_.block) * options_.block;
        request.payload = options_.write ? options_.block : 0;
        queue_send(tag, options_.write);
        co_await waiting_[tag].wait();
    }
    Task<void> receive_loop() {
        while (true) {
            const bool more = co_await receive_more();
            if (!more) break;
            while (const Header* answer = next_message()) {
                if (answer->payload > 0) {
                    std::memcpy(slots_[answer->tag].data(), answer + 1, answer->payload);
                }
                waiting_[answer->tag].wake_one();
            }
        }
        ended_.done();
    }
    std::vector<WaitQueue> waiting_;
    Nanos end_ = 0;
};

Task<void> serve_one(Listener& listener, const Options& options) {
    auto disk = co_await Reactor::current().open_disk(options.file, DiskOptions{});
    if (!disk) check(std::unexpected<Error>(disk.error()), "open");
    auto accepted = co_await listener.accept();
    if (!accepted) check(std::unexpected<Error>(accepted.error()), "accept");
    Server server(std::move(*accepted), **disk, options);
    co_await server.run();
}

Task<void> use_one(Address address, const Options& options, pair::Histogram& latency,
                   pair::CpuWatch& cpu) {
    auto connected = co_await Reactor::current().connect(address, 5 * seconds);
    if (!connected) check(std::unexpected<Error>(connected.error()), "connect");
    Client client(std::move(*connected), options);
    cpu = pair::CpuWatch();
    co_await client.run(latency);
    cpu.stop();
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = pair::parse(argc, argv);
    UringOptions reactor_options;
    reactor_options.buffer_arena_bytes =
        (size_t{4} << 20) + 2 * size_t{options.depth} * std::bit_ceil(options.block);
    auto group = ReactorGroup::start({reactor_options, reactor_options});
    if (!group) check(std::unexpected<Error>(group.error()), "reactors");
    std::unique_ptr<Listener> listener;
    (*group)->call(0, [&] {
        const Address any{"127.0.0.1", 0};
        auto listening = Reactor::current().listen(any);
        if (!listening) check(std::unexpected<Error>(listening.error()), "listen");
        listener = std::move(*listening);
        Reactor::current().spawn(serve_one(*listener, options));
    });
    pair::Histogram latency;
    pair::CpuWatch cpu;
    const Address address = listener->local();
    (*group)->call(1, [&] { return use_one(address, options, latency, cpu); });
    (*group)->call(0, [&] { listener.reset(); });
    pair::report(options, latency, cpu);
    return 0;
}
