#include "wire/message.hpp"

#include <fmt/format.h>

#include "base/crc32c.hpp"

namespace pf::wire {

namespace {

constexpr size_t crc_at = header_bytes - sizeof(uint32_t);

using Header = std::span<const std::byte, header_bytes>;

template <class Message>
void encode_with_crc(const Message& from, std::span<std::byte, header_bytes> to) {
    store(to, from);
    store(to, crc32c(to.first(crc_at)), crc_at);
}

std::unexpected<Error> refuse(Errc code, std::string_view what, std::string_view field,
                              uint64_t value, std::string_view allowed) {
    return fail(code, fmt::format("{}: {} is {}, allowed is {}", what, field, value, allowed));
}

Status check_crc(Header from, std::string_view what) {
    const auto found = load<uint32_t>(from, crc_at);
    const uint32_t expected = crc32c(from.first(crc_at));
    if (found == expected) return {};
    return fail(Errc::protocol,
                fmt::format("{}: crc is {:#010x}, the bytes give {:#010x}", what, found, expected));
}

Status check_magic(Header from, std::string_view what) {
    if (load<uint64_t>(from) == hello_magic) return {};
    std::string seen;
    for (const std::byte byte : from.first(8)) {
        const auto c = static_cast<char>(byte);
        seen += c >= ' ' && c <= '~' ? c : '.';
    }
    return fail(Errc::protocol,
                fmt::format("{}: magic is '{}', not 'PFLASH01': the peer does not speak this "
                            "protocol",
                            what, seen));
}

Status check_version(uint8_t version, std::string_view what) {
    if (version >= version_min && version <= version_max) return {};
    return fail(Errc::unsupported_version,
                fmt::format("{}: version is {}, this build speaks {} to {}", what, version,
                            version_min, version_max));
}

Status check_opcode(Opcode opcode, std::string_view what) {
    if (opcode >= Opcode::ping && opcode <= Opcode::rpc) return {};
    return refuse(Errc::protocol, what, "opcode", static_cast<uint8_t>(opcode), "1 to 12");
}

Status check_status(uint16_t status, std::string_view what) {
    constexpr auto last = static_cast<uint16_t>(Errc::data_lost);
    if (status <= last) return {};
    return refuse(Errc::protocol, what, "status", status, fmt::format("0 to {}", last));
}

Status check_zero(std::string_view what, std::string_view field, uint64_t value) {
    if (value == 0) return {};
    return refuse(Errc::protocol, what, field, value, "0");
}

constexpr std::string_view in_command = "command";

Status check_range(const Command& command, uint64_t length_max) {
    if (command.offset % sector_bytes != 0)
        return refuse(Errc::invalid_argument, in_command, "offset", command.offset,
                      "a multiple of 512");
    if (command.length % sector_bytes != 0)
        return refuse(Errc::invalid_argument, in_command, "length", command.length,
                      "a multiple of 512");
    if (command.length > length_max)
        return refuse(Errc::out_of_range, in_command, "length", command.length,
                      fmt::format("at most {}", length_max));
    if (command.offset > UINT64_MAX - command.length)
        return refuse(Errc::out_of_range, in_command, "offset", command.offset,
                      "an end below 2^64");
    return {};
}

Status check_nonempty_range(const Command& command, uint64_t length_max) {
    if (command.length == 0)
        return refuse(Errc::invalid_argument, in_command, "length", 0, "512 or more");
    return check_range(command, length_max);
}

Status check_payload(const Command& command, uint32_t expected) {
    if (command.payload_length == expected) return {};
    return refuse(Errc::protocol, in_command, "payload_length", command.payload_length,
                  fmt::format("{} for this opcode, offset and length", expected));
}

Status check_no_range(const Command& command) {
    PF_TRY(check_zero(in_command, "offset", command.offset));
    PF_TRY(check_zero(in_command, "length", command.length));
    return check_payload(command, 0);
}

Status check_by_opcode(const Command& command) {
    switch (command.opcode) {
        case Opcode::ping:
            PF_TRY(check_zero(in_command, "shard", command.shard));
            return check_no_range(command);
        case Opcode::flush:
        case Opcode::open_session:
        case Opcode::close_session:
            return check_no_range(command);
        case Opcode::read:
            PF_TRY(check_nonempty_range(command, max_data_bytes));
            return check_payload(command, 0);
        case Opcode::write:
            PF_TRY(check_nonempty_range(command, max_data_bytes));
            return check_payload(command, payload_bytes(command.offset, command.length));
        case Opcode::compare_and_write:
            PF_TRY(check_nonempty_range(command, max_compare_bytes));
            return check_payload(command, 2 * payload_bytes(command.offset, command.length));
        case Opcode::discard:
        case Opcode::write_zeroes:
        case Opcode::block_states:
            PF_TRY(check_nonempty_range(command, UINT32_MAX));
            return check_payload(command, 0);
        case Opcode::abort:
            PF_TRY(check_range(command, UINT32_MAX));
            return check_payload(command, 0);
        case Opcode::rpc:
            PF_TRY(check_zero(in_command, "shard", command.shard));
            PF_TRY(check_zero(in_command, "offset", command.offset));
            if (command.length > max_rpc_bytes)
                return refuse(Errc::out_of_range, in_command, "length", command.length,
                              "at most 1048576");
            return check_payload(command, payload_bytes(0, command.length));
    }
    return fail(Errc::internal, "command: opcode without a rule");
}

Status check_versions(const Hello& hello) {
    if (hello.version_min > hello.version_max)
        return refuse(Errc::protocol, "hello", "version_min", hello.version_min,
                      "at most version_max");
    if (hello.version_max >= version_min && hello.version_min <= version_max) return {};
    return fail(Errc::unsupported_version,
                fmt::format("hello: the peer speaks versions {} to {}, this build {} to {}",
                            hello.version_min, hello.version_max, version_min, version_max));
}

Status check_features(uint64_t features, std::string_view what) {
    if (features == 0) return {};
    return fail(Errc::unsupported,
                fmt::format("{}: features has unknown bits {:#x}", what, features));
}

}  // namespace

void encode(const Command& from, std::span<std::byte, header_bytes> to) {
    encode_with_crc(from, to);
}
void encode(const Completion& from, std::span<std::byte, header_bytes> to) {
    encode_with_crc(from, to);
}
void encode(const Hello& from, std::span<std::byte, header_bytes> to) {
    encode_with_crc(from, to);
}
void encode(const HelloReply& from, std::span<std::byte, header_bytes> to) {
    encode_with_crc(from, to);
}

Result<Command> decode_command(Header from) {
    PF_TRY(check_crc(from, in_command));
    const auto command = load<Command>(from);
    PF_TRY(check_version(command.version, in_command));
    PF_TRY(check_opcode(command.opcode, in_command));
    if ((command.flags & ~known_flags) != 0)
        return refuse(Errc::protocol, in_command, "flags", command.flags, "bits 0 and 1");
    if ((command.flags & flag_no_hole) != 0 && command.opcode != Opcode::write_zeroes)
        return refuse(Errc::protocol, in_command, "flags", command.flags,
                      "no_hole with write_zeroes only");
    if (command.lowest_outstanding_delta > command.request_id)
        return refuse(Errc::protocol, in_command, "lowest_outstanding_delta",
                      command.lowest_outstanding_delta, "at most request_id");
    PF_TRY(check_by_opcode(command));
    return command;
}

Result<Completion> decode_completion(Header from) {
    constexpr std::string_view what = "completion";
    PF_TRY(check_crc(from, what));
    const auto completion = load<Completion>(from);
    PF_TRY(check_version(completion.version, what));
    PF_TRY(check_opcode(completion.opcode, what));
    PF_TRY(check_status(completion.status, what));
    if (completion.length > max_data_bytes)
        return refuse(Errc::out_of_range, what, "length", completion.length, "at most 1048576");
    // Where the data begins in its first block is known to the receiver's request only: here the
    // fewest and the most pieces that `length` bytes can touch.
    const uint32_t least = payload_bytes(0, completion.length);
    const uint32_t most = payload_bytes(block_bytes - 1, completion.length);
    if (completion.payload_length < least || completion.payload_length > most)
        return refuse(Errc::protocol, what, "payload_length", completion.payload_length,
                      fmt::format("{} to {} for this length", least, most));
    if (completion.credits > max_depth)
        return refuse(Errc::out_of_range, what, "credits", completion.credits, "at most 1024");
    PF_TRY(check_zero(what, "reserved0", completion.reserved0));
    PF_TRY(check_zero(what, "reserved1", completion.reserved1));
    return completion;
}

Result<Hello> decode_hello(Header from) {
    constexpr std::string_view what = "hello";
    PF_TRY(check_magic(from, what));
    PF_TRY(check_crc(from, what));
    const auto hello = load<Hello>(from);
    PF_TRY(check_versions(hello));
    if (hello.role < Role::client || hello.role > Role::tool)
        return refuse(Errc::protocol, what, "role", static_cast<uint8_t>(hello.role), "1 to 4");
    if (hello.auth_method != 0)
        return refuse(Errc::unsupported, what, "auth_method", hello.auth_method, "0");
    if (hello.depth == 0 || hello.depth > max_depth)
        return refuse(Errc::out_of_range, what, "depth", hello.depth, "1 to 1024");
    PF_TRY(check_features(hello.features, what));
    PF_TRY(check_zero(what, "reserved", hello.reserved));
    return hello;
}

Result<HelloReply> decode_hello_reply(Header from) {
    constexpr std::string_view what = "hello reply";
    PF_TRY(check_magic(from, what));
    PF_TRY(check_crc(from, what));
    const auto reply = load<HelloReply>(from);
    PF_TRY(check_status(reply.status, what));
    PF_TRY(check_zero(what, "reserved0", reply.reserved0));
    PF_TRY(check_zero(what, "reserved1", reply.reserved1));
    PF_TRY(check_zero(what, "reserved2", reply.reserved2));
    if (reply.status != 0) return reply;  // a refusal: the rest grants nothing
    if (reply.version < version_min || reply.version > version_max)
        return fail(Errc::unsupported_version,
                    fmt::format("hello reply: version is {}, this build speaks {} to {}",
                                reply.version, version_min, version_max));
    if (reply.depth == 0 || reply.depth > max_depth)
        return refuse(Errc::out_of_range, what, "depth", reply.depth, "1 to 1024");
    PF_TRY(check_features(reply.features, what));
    if (reply.max_data_bytes < block_bytes)
        return refuse(Errc::out_of_range, what, "max_data_bytes", reply.max_data_bytes,
                      "4096 or more");
    return reply;
}

}  // namespace pf::wire
