#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <array>

#include "base/crc32c.hpp"
#include "wire/message.hpp"

namespace pf::wire {
namespace {

using Header = std::array<std::byte, header_bytes>;

template <class Message>
Header encoded(const Message& message) {
    Header bytes;
    encode(message, bytes);
    return bytes;
}

Result<Command> decode_again(const Command& c) {
    return decode_command(encoded(c));
}
Result<Completion> decode_again(const Completion& c) {
    return decode_completion(encoded(c));
}
Result<Hello> decode_again(const Hello& h) {
    return decode_hello(encoded(h));
}
Result<HelloReply> decode_again(const HelloReply& r) {
    return decode_hello_reply(encoded(r));
}

template <class Message>
void expect_refused(const Message& message, Errc code, std::string_view field) {
    const auto result = decode_again(message);
    ASSERT_FALSE(result.has_value()) << field;
    EXPECT_EQ(result.error().code, code) << result.error().message;
    EXPECT_NE(result.error().message.find(field), std::string::npos) << result.error().message;
}

uint32_t random_length(uint32_t most) {
    return *rc::gen::inRange<uint32_t>(1, most / sector_bytes + 1) * sector_bytes;
}

Command random_command() {
    Command c;
    c.opcode = static_cast<Opcode>(*rc::gen::inRange(1, 13));
    c.command_id = *rc::gen::arbitrary<uint32_t>();
    c.epoch = *rc::gen::arbitrary<uint32_t>();
    c.snap_seq = *rc::gen::arbitrary<uint32_t>();
    c.writer_token = *rc::gen::arbitrary<uint64_t>();
    c.request_id = *rc::gen::arbitrary<uint64_t>();
    c.flags = *rc::gen::element<uint16_t>(flag_none, flag_resent);
    if (c.opcode != Opcode::ping && c.opcode != Opcode::rpc)
        c.shard = *rc::gen::arbitrary<uint64_t>();
    const uint64_t offset = *rc::gen::inRange<uint64_t>(0, 1u << 30) * sector_bytes;
    switch (c.opcode) {
        case Opcode::read:
            c.offset = offset;
            c.length = random_length(max_data_bytes);
            break;
        case Opcode::write:
            c.offset = offset;
            c.length = random_length(max_data_bytes);
            c.payload_length = payload_bytes(c.offset, c.length);
            break;
        case Opcode::compare_and_write:
            c.offset = offset;
            c.length = random_length(max_compare_bytes);
            c.payload_length = 2 * payload_bytes(c.offset, c.length);
            break;
        case Opcode::discard:
        case Opcode::write_zeroes:
        case Opcode::block_states:
            c.offset = offset;
            c.length = random_length(1u << 31);
            break;
        case Opcode::rpc:
            c.length = *rc::gen::inRange<uint32_t>(0, max_rpc_bytes + 1);
            c.payload_length = payload_bytes(0, c.length);
            break;
        default:
            break;
    }
    return c;
}

TEST(Wire, RandomCommandsComeBackAsTheyWere) {
    EXPECT_TRUE(rc::check([] {
        const Header bytes = encoded(random_command());
        const auto back = decode_command(bytes);
        RC_ASSERT(back.has_value());
        RC_ASSERT(back->payload_length <= max_payload_bytes);
        RC_ASSERT(encoded(*back) == bytes);
    }));
}

TEST(Wire, RandomCompletionsComeBackAsTheyWere) {
    EXPECT_TRUE(rc::check([] {
        Completion c;
        c.opcode = static_cast<Opcode>(*rc::gen::inRange(1, 13));
        c.status = static_cast<uint16_t>(*rc::gen::inRange(0, 28));
        c.command_id = *rc::gen::arbitrary<uint32_t>();
        c.length = *rc::gen::inRange<uint32_t>(0, max_data_bytes + 1);
        c.payload_length = payload_bytes(*rc::gen::inRange<uint64_t>(0, block_bytes), c.length);
        c.committed = *rc::gen::arbitrary<uint64_t>();
        c.credits = *rc::gen::inRange<uint32_t>(0, max_depth + 1);
        const Header bytes = encoded(c);
        const auto back = decode_completion(bytes);
        RC_ASSERT(back.has_value());
        RC_ASSERT(encoded(*back) == bytes);
    }));
}

template <class Decode>
void expect_every_flip_refused(const Header& bytes, Decode decode) {
    ASSERT_TRUE(decode(bytes).has_value());
    for (size_t bit = 0; bit < header_bytes * 8; ++bit) {
        Header flipped = bytes;
        flipped[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
        EXPECT_FALSE(decode(flipped).has_value()) << "bit " << bit;
    }
}

TEST(Wire, EveryFlippedBitIsRefused) {
    Command command;
    command.opcode = Opcode::write;
    command.offset = 4608;
    command.length = 8192;
    command.payload_length = payload_bytes(command.offset, command.length);
    Hello hello;
    hello.depth = 128;
    HelloReply reply;
    reply.depth = 128;
    expect_every_flip_refused(encoded(command), [](const Header& h) { return decode_command(h); });
    expect_every_flip_refused(encoded(Completion{}),
                              [](const Header& h) { return decode_completion(h); });
    expect_every_flip_refused(encoded(hello), [](const Header& h) { return decode_hello(h); });
    expect_every_flip_refused(encoded(reply),
                              [](const Header& h) { return decode_hello_reply(h); });
}

Command write_of(uint64_t offset, uint32_t length) {
    Command c;
    c.opcode = Opcode::write;
    c.shard = 1;
    c.offset = offset;
    c.length = length;
    c.payload_length = payload_bytes(offset, length);
    return c;
}

TEST(Wire, BadCommandsAreRefusedByField) {
    expect_refused(write_of(100, 512), Errc::invalid_argument, "offset");
    expect_refused(write_of(0, 100), Errc::invalid_argument, "length");
    expect_refused(write_of(0, 0), Errc::invalid_argument, "length");
    expect_refused(write_of(0, max_data_bytes + 512), Errc::out_of_range, "length");
    expect_refused(write_of(UINT64_MAX - 511, 4096), Errc::out_of_range, "offset");
    Command c = write_of(0, 4096);
    c.payload_length = UINT32_MAX;
    expect_refused(c, Errc::protocol, "payload_length");
    c = write_of(0, 4096);
    c.version = 9;
    expect_refused(c, Errc::unsupported_version, "version");
    c = write_of(0, 4096);
    c.opcode = static_cast<Opcode>(13);
    expect_refused(c, Errc::protocol, "opcode");
    c.opcode = static_cast<Opcode>(0);
    expect_refused(c, Errc::protocol, "opcode");
    c = write_of(0, 4096);
    c.flags = 4;
    expect_refused(c, Errc::protocol, "flags");
    c.flags = flag_no_hole;
    expect_refused(c, Errc::protocol, "flags");
    c = write_of(0, 4096);
    c.request_id = 3;
    c.lowest_outstanding_delta = 4;
    expect_refused(c, Errc::protocol, "lowest_outstanding_delta");
    c = write_of(0, 4096);
    c.opcode = Opcode::read;  // a read carries no payload
    expect_refused(c, Errc::protocol, "payload_length");
    c = write_of(0, 4096);
    c.opcode = Opcode::compare_and_write;  // one half only
    expect_refused(c, Errc::protocol, "payload_length");
    c = write_of(0, 128u << 10);
    c.opcode = Opcode::compare_and_write;
    expect_refused(c, Errc::out_of_range, "length");
}

TEST(Wire, BadHellosAreRefusedByField) {
    Hello good;
    good.depth = 1;
    Hello h = good;
    h.version_min = 7;
    h.version_max = 9;
    expect_refused(h, Errc::unsupported_version, "7 to 9");
    expect_refused(h, Errc::unsupported_version, "this build 1 to 1");
    h = good;
    h.depth = 0;
    expect_refused(h, Errc::out_of_range, "depth");
    h = good;
    h.depth = 1025;
    expect_refused(h, Errc::out_of_range, "depth");
    h = good;
    h.features = 1;
    expect_refused(h, Errc::unsupported, "features");
    h = good;
    h.auth_method = 1;
    expect_refused(h, Errc::unsupported, "auth_method");
    h = good;
    h.role = static_cast<Role>(5);
    expect_refused(h, Errc::protocol, "role");
    h = good;
    h.reserved = 1;
    expect_refused(h, Errc::protocol, "reserved");

    Header http{};
    store(http, std::array<char, 8>{'G', 'E', 'T', ' ', '/', ' ', 'H', 'T'});
    const auto refused = decode_hello(http);
    ASSERT_FALSE(refused.has_value());
    EXPECT_NE(refused.error().message.find("'GET / HT'"), std::string::npos);
}

TEST(Wire, BadRepliesAreRefusedByField) {
    Completion c;
    c.status = 28;
    expect_refused(c, Errc::protocol, "status is 28, allowed is 0 to 27");
    c = {};
    c.length = max_data_bytes + 1;
    expect_refused(c, Errc::out_of_range, "length");
    c = {};
    c.length = 4096;
    expect_refused(c, Errc::protocol, "payload_length");
    c = {};
    c.payload_length = 4;
    expect_refused(c, Errc::protocol, "payload_length");
    c = {};
    c.reserved1 = 1;
    expect_refused(c, Errc::protocol, "reserved1");
    HelloReply r;
    expect_refused(r, Errc::out_of_range, "depth");
    r.depth = 1;
    r.version = 2;
    expect_refused(r, Errc::unsupported_version, "version");
    r.version = 1;
    r.max_data_bytes = 100;
    expect_refused(r, Errc::out_of_range, "max_data_bytes");
}

}  // namespace
}  // namespace pf::wire
