// Requests of hostile clients and stores: envelopes of any content, several in a row, to a
// conductor that has a store, a tray and a volume. Two bytes of length, then the request, until the
// end.
#include "base/assert.hpp"
#include "base/log.hpp"
#include "conductor/fake_stores.hpp"
#include "conductor/rpc_server.hpp"
#include "meta/memory_engine.hpp"
#include "meta/test_reactor.hpp"

namespace {

using namespace pf;
using namespace pf::conductor;

v1::RegisterStoreRequest store_request() {
    v1::RegisterStoreRequest request;
    auto& record = *request.mutable_store();
    record.set_uuid("11111111-0000-4000-8000-000000000001");
    record.set_data_address("store1:1");
    auto& tray = *record.add_trays();
    tray.set_uuid("00000000-0000-4000-8000-000000000011");
    tray.set_capacity_bytes(uint64_t{1} << 40);
    tray.set_free_bytes(uint64_t{1} << 40);
    tray.set_incarnation(1);
    tray.set_health(v1::HEALTH_OK);
    return request;
}

v1::CreateVolumeRequest volume_request() {
    v1::CreateVolumeRequest request;
    request.set_name("v");
    request.set_size_bytes(uint64_t{1} << 30);
    request.set_replicas(1);
    return request;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    constexpr int max_requests = 8;
    set_log_level(LogLevel::off);
    meta::TestReactor reactor{meta::TestReactor::Time::jumping};
    meta::MemoryStore keys;
    meta::MemoryEngine engine(reactor, keys, runtime::microseconds);
    FakeStores stores;
    Core core(reactor, engine, stores, CoreOptions{});
    RpcServer server(core);
    const Status started = reactor.run(core.start());
    PF_ASSERT(started);
    PF_ASSERT(reactor.run(core.register_store(store_request())));
    reactor.run_for(100 * runtime::milliseconds);
    PF_ASSERT(reactor.run(core.create_volume(volume_request())));

    std::string_view input(reinterpret_cast<const char*>(data), size);
    for (int i = 0; i < max_requests && input.size() > 2; ++i) {
        const size_t length =
            static_cast<uint8_t>(input[0]) + 256u * static_cast<uint8_t>(input[1]);
        input.remove_prefix(2);
        std::string request(input.substr(0, length));
        input.remove_prefix(std::min(length, input.size()));
        const Result<std::string> reply = reactor.run(server.answer(std::move(request), 1));
        if (reply) {
            v1::RpcReply parsed;
            PF_ASSERT(parsed.ParseFromString(*reply));
        }
    }
    reactor.run_for(runtime::seconds);
    PF_ASSERT(core.serving());
    reactor.run(core.stop());
    reactor.run(engine.close());
    return 0;
}
