#include "attach/nbd_protocol.hpp"

#include <fmt/format.h>

#include <bit>

namespace pf::attach::nbd {
namespace {

template <std::unsigned_integral T>
T big_endian(Bytes bytes, size_t offset) {
    return std::byteswap(load<T>(bytes, offset));
}

template <std::unsigned_integral T>
void put_at(ReplyHeader& to, size_t offset, T value) {
    store(MutableBytes(to), std::byteswap(value), offset);
}

// Takes fields off the front of an option's data and says which one did not fit.
class Reader {
  public:
    explicit Reader(Bytes bytes) : left_(bytes) {}

    template <std::unsigned_integral T>
    Result<T> number(std::string_view field) {
        if (left_.size() < sizeof(T)) return truncated(field);
        const T value = big_endian<T>(left_, 0);
        left_ = left_.subspan(sizeof(T));
        return value;
    }

    // A 32-bit length and as many bytes.
    Result<std::string> text(std::string_view field) {
        PF_TRY_ASSIGN(const uint32_t length, number<uint32_t>(field));
        if (length > max_name_on_wire_bytes) {
            return fail(Errc::protocol, fmt::format("{} of {} bytes is over the limit of {}", field,
                                                    length, max_name_on_wire_bytes));
        }
        if (length > left_.size()) return truncated(field);
        std::string value(as_text(left_.first(length)));
        left_ = left_.subspan(length);
        return value;
    }

    Status end() const {
        if (left_.empty()) return {};
        return fail(Errc::protocol,
                    fmt::format("option length: {} bytes after the last field", left_.size()));
    }

  private:
    static std::unexpected<Error> truncated(std::string_view field) {
        return fail(Errc::protocol, fmt::format("{} is cut off by the end of the option", field));
    }
    Bytes left_;
};

}  // namespace

ErrorNumber to_error_number(Errc code) noexcept {
    switch (code) {
        case Errc::ok:
            return ErrorNumber::none;
        case Errc::invalid_argument:
        case Errc::out_of_range:
        case Errc::protocol:
            return ErrorNumber::invalid;
        case Errc::no_space:
            return ErrorNumber::no_space;
        case Errc::read_only:
            return ErrorNumber::not_permitted;
        case Errc::unsupported:
            return ErrorNumber::not_supported;
        case Errc::resource_exhausted:
            return ErrorNumber::no_memory;
        case Errc::cancelled:
        case Errc::unavailable:
            return ErrorNumber::shutdown;
        default:
            return ErrorNumber::io;
    }
}

Result<uint32_t> decode_client_flags(Bytes bytes) {
    if (bytes.size() < client_flags_bytes) return fail(Errc::protocol, "client flags are cut off");
    const uint32_t flags = big_endian<uint32_t>(bytes, 0);
    if ((flags & ~uint32_t{fixed_newstyle | no_zeroes}) != 0) {
        return fail(Errc::protocol,
                    fmt::format("client flags {:#x}: only fixed newstyle (1) and no zeroes (2) are "
                                "known",
                                flags));
    }
    return flags;
}

Result<OptionHeader> decode_option_header(Bytes bytes) {
    if (bytes.size() < option_header_bytes) return fail(Errc::protocol, "option header is cut off");
    const uint64_t magic = big_endian<uint64_t>(bytes, 0);
    if (magic != option_magic)
        return fail(Errc::protocol, fmt::format("option magic {:#x} is wrong", magic));
    OptionHeader header;
    header.option = big_endian<uint32_t>(bytes, 8);
    header.length_bytes = big_endian<uint32_t>(bytes, 12);
    if (header.length_bytes > max_option_bytes) {
        return fail(Errc::protocol, fmt::format("option length {} is over the limit of {}",
                                                header.length_bytes, max_option_bytes));
    }
    return header;
}

Result<std::string> decode_export_name(Bytes data) {
    if (data.size() > max_name_on_wire_bytes) {
        return fail(Errc::protocol, fmt::format("export name of {} bytes is over the limit of {}",
                                                data.size(), max_name_on_wire_bytes));
    }
    return std::string(as_text(data));
}

Result<InfoRequest> decode_info_request(Bytes data) {
    Reader reader(data);
    InfoRequest request;
    PF_TRY_ASSIGN(request.name, reader.text("export name"));
    PF_TRY_ASSIGN(const uint16_t count, reader.number<uint16_t>("number of information requests"));
    for (uint16_t i = 0; i < count; ++i) {
        PF_TRY_ASSIGN(const uint16_t type, reader.number<uint16_t>("information request"));
        request.types.push_back(type);
    }
    PF_TRY(reader.end());
    return request;
}

Result<MetaContextRequest> decode_meta_context_request(Bytes data) {
    Reader reader(data);
    MetaContextRequest request;
    PF_TRY_ASSIGN(request.name, reader.text("export name"));
    PF_TRY_ASSIGN(const uint32_t count, reader.number<uint32_t>("number of queries"));
    if (count > max_queries) {
        return fail(Errc::protocol, fmt::format("number of queries {} is over the limit of {}",
                                                count, max_queries));
    }
    for (uint32_t i = 0; i < count; ++i) {
        PF_TRY_ASSIGN(std::string query, reader.text("query"));
        request.queries.push_back(std::move(query));
    }
    PF_TRY(reader.end());
    return request;
}

Result<Request> decode_request(Bytes bytes) {
    if (bytes.size() < request_bytes) return fail(Errc::protocol);
    if (big_endian<uint32_t>(bytes, 0) != request_magic) return fail(Errc::protocol);
    Request request;
    request.flags = big_endian<uint16_t>(bytes, 4);
    request.type = big_endian<uint16_t>(bytes, 6);
    request.cookie = big_endian<uint64_t>(bytes, 8);
    request.offset = big_endian<uint64_t>(bytes, 16);
    request.length_bytes = big_endian<uint32_t>(bytes, 24);
    return request;
}

void put_greeting(Writer writer) {
    writer.put(greeting_magic).put(option_magic);
    writer.put(static_cast<uint16_t>(fixed_newstyle | no_zeroes));
}

void put_option_reply(Writer writer, uint32_t option, OptionReply reply, std::string_view data) {
    writer.put(option_reply_magic).put(option).put(static_cast<uint32_t>(reply));
    writer.put(static_cast<uint32_t>(data.size())).put(data);
}

void put_export_info(Writer writer, uint32_t option, uint64_t size_bytes, uint16_t flags) {
    writer.put(option_reply_magic).put(option).put(static_cast<uint32_t>(OptionReply::info));
    writer.put(uint32_t{12}).put(static_cast<uint16_t>(InfoType::export_));
    writer.put(size_bytes).put(flags);
}

void put_block_size_info(Writer writer, uint32_t option, uint32_t min_bytes,
                         uint32_t preferred_bytes, uint32_t max_bytes) {
    writer.put(option_reply_magic).put(option).put(static_cast<uint32_t>(OptionReply::info));
    writer.put(uint32_t{14}).put(static_cast<uint16_t>(InfoType::block_size));
    writer.put(min_bytes).put(preferred_bytes).put(max_bytes);
}

void put_name_info(Writer writer, uint32_t option, std::string_view name) {
    writer.put(option_reply_magic).put(option).put(static_cast<uint32_t>(OptionReply::info));
    writer.put(static_cast<uint32_t>(2 + name.size()));
    writer.put(static_cast<uint16_t>(InfoType::name)).put(name);
}

void put_listed_export(Writer writer, std::string_view name) {
    writer.put(option_reply_magic).put(static_cast<uint32_t>(Option::list));
    writer.put(static_cast<uint32_t>(OptionReply::server));
    writer.put(static_cast<uint32_t>(4 + name.size()));
    writer.put(static_cast<uint32_t>(name.size())).put(name);
}

void put_meta_context(Writer writer, uint32_t option, uint32_t id, std::string_view name) {
    writer.put(option_reply_magic).put(option);
    writer.put(static_cast<uint32_t>(OptionReply::meta_context));
    writer.put(static_cast<uint32_t>(4 + name.size())).put(id).put(name);
}

uint32_t put_simple_reply(ReplyHeader& to, uint64_t cookie, ErrorNumber error) {
    put_at(to, 0, simple_reply_magic);
    put_at(to, 4, static_cast<uint32_t>(error));
    put_at(to, 8, cookie);
    return simple_reply_bytes;
}

namespace {
void put_chunk_header(ReplyHeader& to, Chunk type, uint64_t cookie, uint32_t length_bytes) {
    put_at(to, 0, structured_reply_magic);
    put_at(to, 4, chunk_done);
    put_at(to, 6, static_cast<uint16_t>(type));
    put_at(to, 8, cookie);
    put_at(to, 16, length_bytes);
}
}  // namespace

uint32_t put_closing_chunk(ReplyHeader& to, uint64_t cookie, ErrorNumber error) {
    if (error == ErrorNumber::none) {
        put_chunk_header(to, Chunk::none, cookie, 0);
        return chunk_header_bytes;
    }
    put_chunk_header(to, Chunk::error, cookie, 6);
    put_at(to, chunk_header_bytes, static_cast<uint32_t>(error));
    put_at(to, chunk_header_bytes + 4, uint16_t{0});
    return chunk_header_bytes + 6;
}

uint32_t put_data_chunk(ReplyHeader& to, uint64_t cookie, uint64_t offset, uint32_t data_bytes) {
    put_chunk_header(to, Chunk::offset_data, cookie, 8 + data_bytes);
    put_at(to, chunk_header_bytes, offset);
    return chunk_header_bytes + 8;
}

uint32_t put_block_status_chunk(ReplyHeader& to, uint64_t cookie, uint32_t extent_count) {
    put_chunk_header(to, Chunk::block_status, cookie, 4 + 8 * extent_count);
    put_at(to, chunk_header_bytes, base_allocation_id);
    return chunk_header_bytes + 4;
}

}  // namespace pf::attach::nbd
