// Feeds bytes as a client would to a whole connection: handshake, requests and payloads. The first
// byte says how the stream is cut into receives and how the volume fails.
#include <cstdint>
#include <memory>

#include "attach/fake_volume.hpp"
#include "attach/loop_reactor.hpp"
#include "attach/nbd_server.hpp"

using namespace pf;
using namespace pf::attach;

namespace {
runtime::Task<void> stop(nbd::Server& server, bool& stopped) {
    co_await server.stop(runtime::seconds);
    stopped = true;
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0 || size > (4u << 20)) return 0;
    LoopReactor reactor;
    FakeVolume volume("vol", 1u << 20);
    {
        nbd::Server server({{"vol", &volume, (data[0] & 0x40) != 0}}, {});
        reactor.call([&] { server.start(std::move(*reactor.listen({"server", 1}))); });
        const auto pipe = reactor.connect_client();
        pipe->receive_limit = (data[0] & 0x0f) == 0 ? SIZE_MAX : size_t{1} << (data[0] & 0x0f);
        if ((data[0] & 0x80) != 0) volume.fail_next = Errc::io_error;
        const auto* bytes = reinterpret_cast<const std::byte*>(data);
        pipe->to_server.insert(pipe->to_server.end(), bytes + 1, bytes + size);
        pipe->client_closed = (data[0] & 0x20) != 0;
        reactor.run();
        bool stopped = false;
        reactor.call([&] { reactor.spawn(stop(server, stopped)); });
        reactor.advance(2 * runtime::seconds);
        // Whatever came, the connection ends and every byte of memory is back.
        PF_ASSERT(stopped);
        PF_ASSERT(reactor.buffers().free_bytes() == reactor.buffers().arena().size());
    }
    return 0;
}
