#include "net/channel.hpp"

namespace pf::net {

void ClientChannel::CallAwaiter::await_suspend(std::coroutine_handle<> waiter) {
    request_.context = waiter.address();
    request_.complete = [](Request& request) {
        runtime::schedule(std::coroutine_handle<>::from_address(request.context));
    };
    channel_.issue(request_);
}

std::span<uint32_t> Reply::make_crcs(runtime::Buffer memory_if_large, uint32_t count) {
    crc_count = count;
    if (count <= Incoming::inline_crcs) return {crcs_inline, count};
    PF_ASSERT(memory_if_large.size() >= count * sizeof(uint32_t));
    crcs_memory = std::move(memory_if_large);
    return {reinterpret_cast<uint32_t*>(crcs_memory.data()), count};
}

}  // namespace pf::net
