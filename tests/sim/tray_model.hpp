// What a tray must hold, kept in plain memory: the oracle of the crash suite and of the long tray
// runs. It knows generations by their whole view, so it shares no idea with the tray's own map.
//
// A block's contents are named by a tag: 0 is a hole, 1 is zeros, anything else is one block of one
// write and never occurs twice. Equal tags in two generations are therefore the same block on the
// medium, which is what makes exact space accounting possible.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tray/types.hpp"

namespace pf::test {

using Tag = uint64_t;
inline constexpr Tag hole_tag = 0;
inline constexpr Tag zero_tag = 1;

// The 4 KiB that a tag stands for.
void fill_block(Tag tag, MutableBytes to);
[[nodiscard]] uint32_t block_crc(Tag tag);

using ChunkView = std::array<Tag, blocks_per_chunk>;

struct ModelGeneration {
    tray::SnapSeq parent = 0;
    bool nameless = false;
    // Chunks by index; missing: all holes. Shared until written.
    std::map<uint32_t, std::shared_ptr<const ChunkView>> chunks;

    [[nodiscard]] Tag at(uint32_t block) const;
    void set(uint32_t block, Tag tag);
};

// An operation that was started and not yet answered.
struct ModelOperation {
    enum class Kind : uint8_t {
        write,
        create_generation,
        delete_generation,
        create_shard,  // of `count` blocks
        delete_shard,
        void_request,
        other
    };
    Kind kind = Kind::write;
    tray::ShardId shard = 0;
    tray::SnapSeq snap_seq = 0;  // of the write, or the generation made or deleted
    tray::SnapSeq parent = 0;    // create_generation
    tray::WriteKind write_kind = tray::WriteKind::data;
    uint32_t block = 0;
    uint32_t count = 0;
    Tag first_tag = 0;  // data: block i holds first_tag + i
    tray::RequestName request;
    tray::Position position;
    bool durable = false;  // a write that the tray called durable and that is not committed yet

    [[nodiscard]] Tag tag_of(uint32_t block_index) const;
};

struct ModelShard {
    uint32_t blocks = 0;
    tray::SnapSeq head = 1;
    tray::SnapSeq next_snap_seq = 2;
    tray::Position last;  // highest that was answered
    uint64_t next_sequence = 1;
    std::map<tray::SnapSeq, ModelGeneration> generations{{1, {}}};
    // Requests that the client has not yet taken note of, by session: true is applied, false void.
    std::map<uint64_t, std::map<uint64_t, bool>> sessions;
};

class TrayModel {
  public:
    std::map<tray::ShardId, ModelShard> shards;
    std::map<uint64_t, ModelOperation> in_flight;  // by an id of the caller's
    bool ready = false;                            // the shards were made
    bool checkpointing = false;                    // an explicit checkpoint is running
    bool full = false;  // one of the last operations was refused for space

    // What an operation does once it is answered.
    void apply(const ModelOperation& operation);
    // Data blocks that some generation of some shard sees, each counted once.
    [[nodiscard]] uint64_t user_blocks() const;

  private:
    static void note_request(ModelShard& shard, const tray::RequestName& name, bool applied);
    static void remove_generation(ModelShard& shard, tray::SnapSeq snap_seq);
};

}  // namespace pf::test
