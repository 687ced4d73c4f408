// The job of the runtime pair on our channels: headers with CRCs, credits, CRCs of the data checked
// on both sides. The ratio to runtime_pair is the price of the transport. The file must be all
// zeros: then the CRC of every block is known, as a store knows it from its map.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "base/crc32c.hpp"
#include "net/channel.hpp"
#include "pair.hpp"
#include "runtime/uring/reactor_thread.hpp"

namespace {

using pair::Options;
using namespace pf;           // NOLINT: a small program of its own
using namespace pf::runtime;  // NOLINT

void check(const Status& status, const char* what) {
    if (status) return;
    std::fprintf(stderr, "%s: %s\n", what, status.error().text().c_str());
    std::exit(1);
}

class FileHandler : public net::Handler {
  public:
    explicit FileHandler(std::unique_ptr<Disk> disk) : disk_(std::move(disk)) {}
    Status on_hello(net::ServerChannel&, const wire::Hello&, wire::HelloReply&) override {
        return {};
    }
    void on_disconnect(net::ServerChannel&) override {}
    void on_peer_error(const Address&, const Error& error) override {
        std::fprintf(stderr, "peer: %s\n", error.text().c_str());
    }
    Task<void> on_command(net::ServerChannel& channel, net::Incoming incoming) override {
        const wire::Command& command = incoming.command;
        net::Reply reply;
        if (command.opcode == wire::Opcode::write) {
            PF_ASSERT(incoming.payload_ok);
            const auto written = co_await disk_->write(command.offset, incoming.data.bytes());
            check(written, "write");
        } else {
            BufferPool& pool = Reactor::current().buffers();
            const uint32_t count = wire::blocks_touched(command.offset, command.length);
            reply.data = co_await pool.allocate(command.length);
            Buffer crcs;
            if (count > net::Incoming::inline_crcs)
                crcs = co_await pool.allocate(size_t{4} * count);
            const auto read = co_await disk_->read(command.offset, reply.data.bytes());
            check(read, "read");
            reply.data_length = command.length;
            std::ranges::fill(reply.make_crcs(std::move(crcs), count), crc32c_of_zero_block());
        }
        channel.reply(command, std::move(reply));
    }

  private:
    std::unique_ptr<Disk> disk_;
};

// One I/O after the other, as an application with a queue depth of one.
struct User {
    User(const Options& options, net::ClientChannel& to)
        : channel(to), memory(options.block), crcs(options.block / block_bytes) {
        vector = {memory.data(), memory.size()};
    }
    Task<void> run(const Options& options, Nanos end, pair::Histogram& latency, WaitGroup& users) {
        Reactor& reactor = Reactor::current();
        net::Request request;
        request.command.opcode = options.write ? wire::Opcode::write : wire::Opcode::read;
        request.command.length = options.block;
        if (options.write) {
            request.data = {&vector, 1};
            request.crcs = crcs;
        } else {
            request.into = {&vector, 1};
        }
        while (reactor.now() < end) {
            const Nanos start = reactor.now();
            request.command.offset =
                reactor.rng().below(options.size / options.block) * options.block;
            for (size_t i = 0; options.write && i < crcs.size(); ++i)
                crcs[i] = crc32c({memory.data() + i * block_bytes, block_bytes});
            co_await channel.call(request);
            PF_ASSERT(request.outcome == Errc::ok && request.completion.status == 0);
            latency.add(reactor.now() - start);
        }
        users.done();
    }

    net::ClientChannel& channel;
    std::vector<std::byte> memory;
    std::vector<uint32_t> crcs;
    iovec vector{};
};

Task<void> use_all(Address address, const Options& options, pair::Histogram& latency,
                   pair::CpuWatch& cpu) {
    net::ClientOptions channel_options;
    channel_options.depth = static_cast<uint16_t>(options.depth);
    auto connecting = net::ClientChannel::connect(address, channel_options);
    auto channel = co_await connecting;
    if (!channel) check(std::unexpected<Error>(channel.error()), "connect");
    std::vector<std::unique_ptr<User>> users(options.depth);
    for (auto& user : users) user = std::make_unique<User>(options, **channel);
    Reactor& reactor = Reactor::current();
    const Nanos end = reactor.now() + static_cast<Nanos>(options.seconds * 1e9);
    WaitGroup running;
    running.add(users.size());
    cpu = pair::CpuWatch();
    for (auto& user : users) reactor.spawn(user->run(options, end, latency, running));
    co_await running.wait();
    cpu.stop();
    co_await (*channel)->close();
}

struct Serving {
    std::unique_ptr<FileHandler> handler;
    std::unique_ptr<net::Server> server;
};

Task<Status> serve(const Options& options, Serving& serving) {
    auto opening = Reactor::current().open_disk(options.file, DiskOptions{});
    auto disk = co_await opening;
    if (!disk) co_return std::unexpected<Error>(disk.error());
    serving.handler = std::make_unique<FileHandler>(std::move(*disk));
    const Address any{"127.0.0.1", 0};
    PF_CO_TRY_ASSIGN(serving.server, net::Server::listen(any, *serving.handler));
    co_return Status{};
}

Task<void> end(Serving& serving) {
    co_await serving.server->stop();
    serving.server.reset();
    serving.handler.reset();
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = pair::parse(argc, argv);
    UringOptions reactor_options;
    reactor_options.buffer_arena_bytes =
        (size_t{4} << 20) + 2 * size_t{options.depth} * (std::bit_ceil(options.block) + 4096);
    auto group = ReactorGroup::start({reactor_options, reactor_options});
    if (!group) check(std::unexpected<Error>(group.error()), "reactors");
    Serving serving;
    check((*group)->call(0, [&] { return serve(options, serving); }), "serve");
    pair::Histogram latency;
    pair::CpuWatch cpu;
    const Address address = serving.server->local();
    (*group)->call(1, [&] { return use_all(address, options, latency, cpu); });
    (*group)->call(0, [&] { return end(serving); });
    pair::report(options, latency, cpu);
    return 0;
}
