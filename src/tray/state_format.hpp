// The state records of a checkpoint: shards, generations and sessions, packed into a chain of
// metadata blocks; no record spans blocks (docs/formats/tray.md). Shards come before their
// generations, parents before children, sessions last.
#pragma once

#include <variant>
#include <vector>

#include "tray/format.hpp"
#include "tray/sessions.hpp"

namespace pf::tray {

#pragma pack(push, 1)
struct StateHeaderFormat {
    uint16_t type;  // 1 shard, 2 generation, 3 session
    uint16_t bytes;
    uint32_t flags;  // 1: deleted; of a shard, 2: damaged (T7)
};
struct ShardStateFormat {
    StateHeaderFormat header;
    uint64_t shard;
    std::array<uint8_t, 16> replica;
    uint64_t writer_token;
    uint32_t blocks;
    uint32_t epoch;
    uint32_t snap_seq;
    uint32_t highest_snap_seq;  // numbers are never reused (S1)
    uint64_t last_sequence;
    uint64_t committed_sequence;
    uint32_t last_epoch;
    uint32_t committed_epoch;
};
static_assert(sizeof(ShardStateFormat) == 80);
struct GenerationStateFormat {
    StateHeaderFormat header;
    uint64_t shard;
    uint64_t parent_shard;
    uint32_t snap_seq;
    uint32_t parent_snap_seq;
    uint64_t own_blocks;  // data that its parent's view does not refer to
};
static_assert(sizeof(GenerationStateFormat) == 40);
struct SessionStateFormat {
    StateHeaderFormat header;
    uint64_t shard;
    uint64_t session;
    uint64_t lowest;
    std::array<uint64_t, session_window / 64> applied;
    std::array<uint64_t, session_window / 64> voided;
};
static_assert(sizeof(SessionStateFormat) == 288);
#pragma pack(pop)

struct ShardStateRecord {
    ShardState state;
    SnapSeq highest_snap_seq = 0;
    Position last;
    Position committed;
    bool deleted = false;
};
struct GenerationStateRecord {
    GenerationId id;
    GenerationId parent;
    uint64_t own_blocks = 0;
    bool deleted = false;
};
struct SessionStateRecord {
    ShardId shard = 0;
    Session session;
};
using StateRecord = std::variant<ShardStateRecord, GenerationStateRecord, SessionStateRecord>;

// Collects records into payloads of metadata blocks.
class StateEncoder {
  public:
    void add(const ShardStateRecord& record);
    void add(const GenerationStateRecord& record);
    void add(const SessionStateRecord& record);
    [[nodiscard]] std::vector<std::vector<std::byte>> take() { return std::move(payloads_); }

  private:
    template <class Format>
    void append(const Format& format);
    std::vector<std::vector<std::byte>> payloads_;
};

[[nodiscard]] Result<StateRecord> take_state_record(Bytes& records);

}  // namespace pf::tray
