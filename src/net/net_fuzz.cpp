// Bytes of a hostile peer fed into a server's receiving side. Byte 0: bit 0 sends a good hello
// first. Then records of one control byte (bit 0: make the header's CRC right; the rest: how many
// 64-byte pieces of payload follow) and a header. Whatever comes, the server must end up without
// connections and with all its buffers.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/assert.hpp"
#include "base/crc32c.hpp"
#include "net/channel.hpp"
#include "runtime/sim/simulation.hpp"

namespace {

using namespace pf;
using runtime::Task;

class Answering : public net::Handler {
  public:
    Status on_hello(net::ServerChannel&, const wire::Hello&, wire::HelloReply&) override {
        return {};
    }
    void on_disconnect(net::ServerChannel&) override {}
    Task<void> on_command(net::ServerChannel& channel, net::Incoming incoming) override {
        PF_ASSERT(incoming.command.length <= wire::max_data_bytes ||
                  incoming.command.payload_length == 0);
        if (incoming.command.payload_length > 0) {
            PF_ASSERT(incoming.part().size() <= incoming.data.size());
            PF_ASSERT(incoming.crc_count == incoming.crcs().size());
        }
        channel.reply(incoming.command, net::Reply{});
        co_return;
    }
};

std::vector<std::byte> stream_of(Bytes input) {
    std::vector<std::byte> stream;
    const auto take = [&](size_t bytes) {
        const Bytes taken = input.first(std::min(bytes, input.size()));
        input = input.subspan(taken.size());
        return taken;
    };
    const Bytes first = take(1);
    if (!first.empty() && (first[0] & std::byte{1}) != std::byte{0}) {
        wire::Hello hello;
        hello.depth = 4;
        stream.resize(wire::header_bytes);
        wire::encode(hello, std::span<std::byte, wire::header_bytes>(stream.data(), 64));
    }
    while (!input.empty()) {
        const auto control = static_cast<unsigned>(take(1)[0]);
        const Bytes header = take(wire::header_bytes);
        stream.insert(stream.end(), header.begin(), header.end());
        if ((control & 1) != 0 && header.size() == wire::header_bytes)
            store(MutableBytes(stream).last(4), crc32c(header.first(60)));
        const Bytes payload = take(size_t{control >> 1} * 64);
        stream.insert(stream.end(), payload.begin(), payload.end());
    }
    return stream;
}

Task<void> feed(const std::vector<std::byte>& stream) {
    auto connecting =
        runtime::Reactor::current().connect(runtime::Address{"server", 1}, runtime::seconds);
    auto connection = co_await connecting;
    PF_ASSERT(connection.has_value());
    if (!stream.empty()) {
        const Status sent = co_await (*connection)->send(Bytes(stream));
        static_cast<void>(sent);  // the server may have hung up already
    }
    std::byte some[4096];
    while (true) {
        const auto received = co_await (*connection)->receive(MutableBytes(some));
        if (!received || *received == 0) break;
    }
    (*connection)->shut_down();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size > 64u << 10) return 0;
    const auto stream = stream_of({reinterpret_cast<const std::byte*>(data), size});
    Answering handler;
    runtime::sim::SimOptions options;
    options.buffer_bytes = size_t{8} << 20;
    options.trace_contents = false;
    runtime::sim::Simulation sim(options);
    auto& server = sim.add_node("server");
    auto& client = sim.add_node("client");
    net::Server* serving = nullptr;
    server.start([&](runtime::sim::SimReactor&) -> std::shared_ptr<void> {
        auto made = net::Server::listen({"", 1}, handler);
        serving = made->get();
        return std::shared_ptr<net::Server>(std::move(*made));
    });
    client.start();
    client.reactor().spawn(feed(stream));
    // Longer than every timeout of a server; a peer that is well-behaved and idle then hangs up.
    sim.run_for(40 * runtime::seconds);
    client.kill();
    sim.run_for(runtime::seconds);
    PF_ASSERT(serving->connections() == 0);
    const auto& pool = server.reactor().buffers();
    PF_ASSERT(pool.free_bytes() == pool.arena().size());
    return 0;
}
