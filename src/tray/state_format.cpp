#include "tray/state_format.hpp"

#include <fmt/format.h>

namespace pf::tray {

namespace {

constexpr uint16_t shard_type = 1;
constexpr uint16_t generation_type = 2;
constexpr uint16_t session_type = 3;
constexpr uint32_t deleted_flag = 1;
constexpr uint32_t damaged_flag = 2;

std::unexpected<Error> damaged(std::string_view field) {
    return fail(Errc::corrupt, fmt::format("state record: bad {}", field));
}

Result<StateRecord> decode_shard(Bytes bytes) {
    if (bytes.size() != sizeof(ShardStateFormat)) return damaged("length");
    const auto format = load<ShardStateFormat>(bytes);
    if (format.shard == 0) return damaged("shard");
    if (format.blocks == 0 || format.blocks > max_shard_blocks) return damaged("blocks");
    if (format.snap_seq > format.highest_snap_seq) return damaged("snap_seq");
    if ((format.header.flags & ~(deleted_flag | damaged_flag)) != 0) return damaged("flags");
    ShardStateRecord record;
    record.state.shard = format.shard;
    record.state.replica.bytes = format.replica;
    record.state.blocks = format.blocks;
    record.state.epoch = format.epoch;
    record.state.writer_token = format.writer_token;
    record.state.snap_seq = format.snap_seq;
    record.state.damaged = (format.header.flags & damaged_flag) != 0;
    record.highest_snap_seq = format.highest_snap_seq;
    record.last = {format.last_epoch, format.last_sequence};
    record.committed = {format.committed_epoch, format.committed_sequence};
    record.deleted = (format.header.flags & deleted_flag) != 0;
    return StateRecord(record);
}

Result<StateRecord> decode_generation(Bytes bytes) {
    if (bytes.size() != sizeof(GenerationStateFormat)) return damaged("length");
    const auto format = load<GenerationStateFormat>(bytes);
    if (format.shard == 0) return damaged("shard");
    if (format.snap_seq == 0) return damaged("snap_seq");
    GenerationStateRecord record;
    record.id = {format.shard, format.snap_seq};
    record.parent = {format.parent_shard, format.parent_snap_seq};
    record.own_blocks = format.own_blocks;
    record.deleted = (format.header.flags & deleted_flag) != 0;
    return StateRecord(record);
}

Result<StateRecord> decode_session(Bytes bytes) {
    if (bytes.size() != sizeof(SessionStateFormat)) return damaged("length");
    const auto format = load<SessionStateFormat>(bytes);
    if (format.shard == 0) return damaged("shard");
    if (format.session == 0) return damaged("session");
    SessionStateRecord record;
    record.shard = format.shard;
    record.session.id = format.session;
    record.session.lowest = format.lowest;
    record.session.applied = format.applied;
    record.session.voided = format.voided;
    return StateRecord(record);
}

}  // namespace

template <class Format>
void StateEncoder::append(const Format& format) {
    if (payloads_.empty() || payloads_.back().size() + sizeof(Format) > meta_payload_bytes) {
        payloads_.emplace_back().reserve(meta_payload_bytes);
    }
    auto& payload = payloads_.back();
    const auto* bytes = reinterpret_cast<const std::byte*>(&format);
    payload.insert(payload.end(), bytes, bytes + sizeof(Format));
}

void StateEncoder::add(const ShardStateRecord& record) {
    ShardStateFormat format{};
    const uint32_t flags =
        (record.deleted ? deleted_flag : 0) | (record.state.damaged ? damaged_flag : 0);
    format.header = {shard_type, sizeof(format), flags};
    format.shard = record.state.shard;
    format.replica = record.state.replica.bytes;
    format.writer_token = record.state.writer_token;
    format.blocks = record.state.blocks;
    format.epoch = record.state.epoch;
    format.snap_seq = record.state.snap_seq;
    format.highest_snap_seq = record.highest_snap_seq;
    format.last_sequence = record.last.sequence;
    format.last_epoch = record.last.epoch;
    format.committed_sequence = record.committed.sequence;
    format.committed_epoch = record.committed.epoch;
    append(format);
}

void StateEncoder::add(const GenerationStateRecord& record) {
    GenerationStateFormat format{};
    format.header = {generation_type, sizeof(format), record.deleted ? deleted_flag : 0};
    format.shard = record.id.shard;
    format.snap_seq = record.id.snap_seq;
    format.parent_shard = record.parent.shard;
    format.parent_snap_seq = record.parent.snap_seq;
    format.own_blocks = record.own_blocks;
    append(format);
}

void StateEncoder::add(const SessionStateRecord& record) {
    SessionStateFormat format{};
    format.header = {session_type, sizeof(format), 0};
    format.shard = record.shard;
    format.session = record.session.id;
    format.lowest = record.session.lowest;
    format.applied = record.session.applied;
    format.voided = record.session.voided;
    append(format);
}

Result<StateRecord> take_state_record(Bytes& records) {
    if (records.size() < sizeof(StateHeaderFormat)) return damaged("length");
    const auto header = load<StateHeaderFormat>(records);
    if (header.bytes < sizeof(header) || header.bytes > records.size()) return damaged("bytes");
    const Bytes bytes = records.first(header.bytes);
    records = records.subspan(header.bytes);
    switch (header.type) {
        case shard_type:
            return decode_shard(bytes);
        case generation_type:
            return decode_generation(bytes);
        case session_type:
            return decode_session(bytes);
        default:
            return damaged("type");
    }
}

}  // namespace pf::tray
