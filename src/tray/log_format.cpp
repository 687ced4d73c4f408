#include "tray/log_format.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"
#include "base/crc32c.hpp"

namespace pf::tray {

namespace {

std::unexpected<Error> damaged(std::string_view what, std::string_view field) {
    return fail(Errc::corrupt, fmt::format("{}: bad {}", what, field));
}

RecordHeaderFormat header_of(RecordType type, size_t bytes, uint8_t kind = 0) {
    return {static_cast<uint8_t>(type), kind, static_cast<uint16_t>(bytes)};
}

Result<Record> decode_write(Bytes bytes, const Superblock& superblock) {
    if (bytes.size() < sizeof(WriteRecordFormat)) return damaged("write record", "length");
    const auto format = load<WriteRecordFormat>(bytes);
    if (format.header.kind > static_cast<uint8_t>(WriteKind::unmap)) {
        return damaged("write record", "kind");
    }
    WriteRecord record;
    record.kind = static_cast<WriteKind>(format.header.kind);
    const bool has_data = record.kind == WriteKind::data;
    const uint32_t limit = has_data ? max_write_blocks : blocks_per_chunk;
    if (format.count == 0 || format.count > limit) return damaged("write record", "count");
    if (format.shard == 0) return damaged("write record", "shard");
    if (format.snap_seq == 0) return damaged("write record", "snap_seq");
    if (format.block >= max_shard_blocks ||
        format.block % blocks_per_chunk + format.count > blocks_per_chunk) {
        return damaged("write record", "block");
    }
    const size_t crc_count = has_data ? format.count : 0;
    if (has_data ? format.extent_count == 0 || format.extent_count > format.count
                 : format.extent_count != 0) {
        return damaged("write record", "extent_count");
    }
    if (bytes.size() != write_record_bytes(format.extent_count, crc_count)) {
        return damaged("write record", "length");
    }
    record.shard = format.shard;
    record.snap_seq = format.snap_seq;
    record.position = {format.epoch, format.sequence};
    record.request = {format.session, format.request, format.lowest_outstanding};
    record.block = format.block;
    record.count = format.count;
    record.logged_again = (format.flags & 1) != 0;
    const auto* extents = bytes.data() + sizeof(WriteRecordFormat);
    record.extents = {reinterpret_cast<const Extent*>(extents), format.extent_count};
    record.crcs = bytes.subspan(sizeof(WriteRecordFormat) + format.extent_count * sizeof(Extent));
    uint64_t covered = 0;
    for (const Extent& extent : record.extents) {
        if (extent.count == 0 || extent.count > max_write_blocks ||
            !in_data_area(superblock, extent.start) ||
            uint64_t{extent.start} + extent.count > superblock.data_end) {
            return damaged("write record", "extent");
        }
        covered += extent.count;
    }
    if (has_data && covered != format.count) return damaged("write record", "extents in all");
    return Record(record);
}

Result<Record> decode_commit(Bytes bytes) {
    if (bytes.size() != sizeof(CommitRecordFormat)) return damaged("commit record", "length");
    const auto format = load<CommitRecordFormat>(bytes);
    if (format.shard == 0) return damaged("commit record", "shard");
    CommitRecord record;
    record.shard = format.shard;
    record.position = {format.epoch, format.sequence};
    return Record(record);
}

Result<Record> decode_shard(Bytes bytes, RecordType type) {
    if (bytes.size() != sizeof(ShardRecordFormat)) return damaged("shard record", "length");
    const auto format = load<ShardRecordFormat>(bytes);
    if (format.shard == 0) return damaged("shard record", "shard");
    ShardRecord record;
    record.type = type;
    record.state.shard = format.shard;
    record.state.replica.bytes = format.replica;
    record.state.blocks = format.blocks;
    record.state.epoch = format.epoch;
    record.state.writer_token = format.writer_token;
    record.state.snap_seq = format.snap_seq;
    record.parent = {format.parent_shard, format.parent_snap_seq};
    if (type == RecordType::delete_shard || type == RecordType::accept_loss) return Record(record);
    if (format.header.kind > (type == RecordType::create_shard ? 1 : 0)) {
        return damaged("shard record", "kind");
    }
    record.state.damaged = format.header.kind == 1;
    if (format.blocks == 0 || format.blocks > max_shard_blocks) {
        return damaged("shard record", "blocks");
    }
    if (format.snap_seq == 0) return damaged("shard record", "snap_seq");
    return Record(record);
}

Result<Record> decode_generation(Bytes bytes, RecordType type) {
    if (bytes.size() != sizeof(GenerationRecordFormat)) {
        return damaged("generation record", "length");
    }
    const auto format = load<GenerationRecordFormat>(bytes);
    if (format.shard == 0) return damaged("generation record", "shard");
    if (format.snap_seq == 0) return damaged("generation record", "snap_seq");
    if (format.header.kind > 1) return damaged("generation record", "kind");
    GenerationRecord record;
    record.type = type;
    record.id = {format.shard, format.snap_seq};
    record.parent = {format.parent_shard, format.parent_snap_seq};
    record.make_head = format.header.kind == 1;
    return Record(record);
}

Result<Record> decode_session(Bytes bytes, RecordType type) {
    if (bytes.size() != sizeof(SessionRecordFormat)) return damaged("session record", "length");
    const auto format = load<SessionRecordFormat>(bytes);
    if (format.shard == 0) return damaged("session record", "shard");
    if (format.session == 0) return damaged("session record", "session");
    SessionRecord record;
    record.type = type;
    record.shard = format.shard;
    record.request = {format.session, format.request, format.lowest_outstanding};
    return Record(record);
}

}  // namespace

ShardFilter ShardFilter::of(Bytes records) {
    // Every record names its shard in the same place.
    constexpr size_t shard_at = 8;
    static_assert(offsetof(WriteRecordFormat, shard) == shard_at);
    static_assert(offsetof(CommitRecordFormat, shard) == shard_at);
    static_assert(offsetof(ShardRecordFormat, shard) == shard_at);
    static_assert(offsetof(GenerationRecordFormat, shard) == shard_at);
    static_assert(offsetof(SessionRecordFormat, shard) == shard_at);
    ShardFilter filter;
    while (!records.empty()) {
        const auto header = load<RecordHeaderFormat>(records);
        PF_ASSERT(header.bytes > shard_at && header.bytes <= records.size());
        if (static_cast<RecordType>(header.type) != RecordType::commit) {
            filter.add(load<uint64_t>(records, shard_at));
        }
        records = records.subspan(header.bytes);
    }
    return filter;
}

uint32_t seal_log_block(LogHeader header, uint32_t tag, uint32_t used_bytes, MutableBytes block) {
    PF_ASSERT(block.size() == block_bytes && used_bytes <= log_payload_bytes);
    LogHeaderFormat format{};
    format.magic = log_magic;
    format.version = format_version;
    format.used_bytes = static_cast<uint16_t>(used_bytes);
    format.previous_crc = header.previous_crc;
    format.tray_tag = tag;
    format.incarnation = header.incarnation;
    format.sequence = header.sequence;
    format.log_durable = header.log_durable;
    format.data_confirmed = header.data_confirmed;
    format.root_number = header.root_number;
    format.previous_shards = header.previous_shards.bits();
    store(block, format);
    std::ranges::fill(block.subspan(sizeof(format) + used_bytes), std::byte{0});
    format.crc = crc32c(block);
    store(block, format);
    return format.crc;
}

Result<LogBlock> decode_log_block(Bytes block, const Superblock& superblock) {
    if (block.size() != block_bytes) return damaged("log block", "length");
    auto format = load<LogHeaderFormat>(block);
    if (format.magic != log_magic) return damaged("log block", "magic");
    if (format.tray_tag != superblock.tag()) return damaged("log block", "tray_tag");
    const uint32_t crc = format.crc;
    format.crc = 0;
    const uint32_t of_header =
        crc32c(Bytes(reinterpret_cast<const std::byte*>(&format), sizeof(format)));
    if (crc32c(block.subspan(sizeof(format)), of_header) != crc) return damaged("log block", "crc");
    if (format.version != format_version) {
        return fail(Errc::unsupported_version,
                    fmt::format("log block: version {} is not supported", format.version));
    }
    if (format.used_bytes > log_payload_bytes) return damaged("log block", "used_bytes");
    LogBlock result;
    result.header.crc = crc;
    result.header.previous_crc = format.previous_crc;
    result.header.incarnation = format.incarnation;
    result.header.sequence = format.sequence;
    result.header.log_durable = format.log_durable;
    result.header.data_confirmed = format.data_confirmed;
    result.header.root_number = format.root_number;
    result.header.previous_shards = ShardFilter(format.previous_shards);
    result.records = block.subspan(sizeof(format), format.used_bytes);
    return result;
}

uint32_t encode_record(const WriteRecord& record, MutableBytes to) {
    const uint32_t bytes =
        write_record_bytes(record.extents.size(), record.crcs.size() / sizeof(uint32_t));
    WriteRecordFormat format{};
    format.header = header_of(RecordType::write, bytes, static_cast<uint8_t>(record.kind));
    format.count = static_cast<uint16_t>(record.count);
    format.extent_count = static_cast<uint16_t>(record.extents.size());
    format.shard = record.shard;
    format.snap_seq = record.snap_seq;
    format.block = record.block;
    format.sequence = record.position.sequence;
    format.epoch = record.position.epoch;
    format.flags = record.logged_again ? 1 : 0;
    format.session = record.request.session;
    format.request = record.request.request;
    format.lowest_outstanding = record.request.lowest_outstanding;
    store(to, format);
    const size_t extent_bytes = record.extents.size_bytes();
    if (extent_bytes > 0) {
        std::memcpy(to.data() + sizeof(format), record.extents.data(), extent_bytes);
        std::memcpy(to.data() + sizeof(format) + extent_bytes, record.crcs.data(),
                    record.crcs.size());
    }
    return bytes;
}

uint32_t encode_record(const CommitRecord& record, MutableBytes to) {
    CommitRecordFormat format{};
    format.header = header_of(RecordType::commit, sizeof(format));
    format.epoch = record.position.epoch;
    format.shard = record.shard;
    format.sequence = record.position.sequence;
    store(to, format);
    return sizeof(format);
}

uint32_t encode_record(const ShardRecord& record, MutableBytes to) {
    ShardRecordFormat format{};
    const bool damaged = record.type == RecordType::create_shard && record.state.damaged;
    format.header = header_of(record.type, sizeof(format), damaged ? 1 : 0);
    format.blocks = record.state.blocks;
    format.shard = record.state.shard;
    format.replica = record.state.replica.bytes;
    format.writer_token = record.state.writer_token;
    format.epoch = record.state.epoch;
    format.snap_seq = record.state.snap_seq;
    format.parent_shard = record.parent.shard;
    format.parent_snap_seq = record.parent.snap_seq;
    store(to, format);
    return sizeof(format);
}

uint32_t encode_record(const GenerationRecord& record, MutableBytes to) {
    GenerationRecordFormat format{};
    format.header = header_of(record.type, sizeof(format), record.make_head ? 1 : 0);
    format.snap_seq = record.id.snap_seq;
    format.shard = record.id.shard;
    format.parent_shard = record.parent.shard;
    format.parent_snap_seq = record.parent.snap_seq;
    store(to, format);
    return sizeof(format);
}

uint32_t encode_record(const SessionRecord& record, MutableBytes to) {
    SessionRecordFormat format{};
    format.header = header_of(record.type, sizeof(format));
    format.shard = record.shard;
    format.session = record.request.session;
    format.request = record.request.request;
    format.lowest_outstanding = record.request.lowest_outstanding;
    store(to, format);
    return sizeof(format);
}

Result<Record> take_record(Bytes& records, const Superblock& superblock) {
    if (records.size() < sizeof(RecordHeaderFormat)) return damaged("record", "length");
    const auto header = load<RecordHeaderFormat>(records);
    if (header.bytes < sizeof(RecordHeaderFormat) || header.bytes > records.size()) {
        return damaged("record", "bytes");
    }
    const Bytes bytes = records.first(header.bytes);
    records = records.subspan(header.bytes);
    const auto type = static_cast<RecordType>(header.type);
    switch (type) {
        case RecordType::write:
            return decode_write(bytes, superblock);
        case RecordType::commit:
            return decode_commit(bytes);
        case RecordType::create_shard:
        case RecordType::set_shard:
        case RecordType::delete_shard:
        case RecordType::accept_loss:
            return decode_shard(bytes, type);
        case RecordType::create_generation:
        case RecordType::delete_generation:
            return decode_generation(bytes, type);
        case RecordType::open_session:
        case RecordType::close_session:
        case RecordType::void_request:
            return decode_session(bytes, type);
    }
    return damaged("record", "type");
}

}  // namespace pf::tray
