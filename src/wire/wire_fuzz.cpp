// Every decoder of wire/message.hpp on arbitrary bytes. The first byte says which, and whether the
// CRC is made right first, so that the checks behind it are reached.
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/assert.hpp"
#include "base/crc32c.hpp"
#include "wire/message.hpp"

namespace {

using namespace pf;

template <class Message>
void check(const Result<Message>& decoded, std::span<const std::byte, wire::header_bytes> from) {
    if (!decoded) {
        PF_ASSERT(decoded.error().code != Errc::ok && !decoded.error().message.empty());
        return;
    }
    std::array<std::byte, wire::header_bytes> again;
    wire::encode(*decoded, again);
    PF_ASSERT(std::ranges::equal(from, again));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 1 + wire::header_bytes) return 0;
    std::array<std::byte, wire::header_bytes> bytes;
    std::copy_n(reinterpret_cast<const std::byte*>(data + 1), bytes.size(), bytes.begin());
    if ((data[0] & 4) != 0) store(bytes, crc32c(Bytes(bytes).first(60)), 60);
    switch (data[0] & 3) {
        case 0: {
            const auto command = wire::decode_command(bytes);
            if (command) PF_ASSERT(command->payload_length <= wire::max_payload_bytes);
            check(command, bytes);
            break;
        }
        case 1: {
            const auto completion = wire::decode_completion(bytes);
            if (completion) PF_ASSERT(completion->payload_length <= wire::max_payload_bytes);
            check(completion, bytes);
            break;
        }
        case 2:
            check(wire::decode_hello(bytes), bytes);
            break;
        default:
            check(wire::decode_hello_reply(bytes), bytes);
            break;
    }
    return 0;
}
