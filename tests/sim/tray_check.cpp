#include "tray_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "base/crc32c.hpp"
#include "runtime/reactor.hpp"

namespace pf::test {

using runtime::Task;
using tray::ShardId;
using tray::SnapSeq;

namespace {

using Kind = ModelOperation::Kind;

// Shards and generations: operations in flight are done or not, the rest must be as the model says.
std::string settle_structure(tray::Tray& tray, TrayModel& model) {
    std::set<ShardId> found;
    for (const auto& state : tray.shards()) found.insert(state.shard);
    for (const auto& [id, operation] : model.in_flight) {
        const bool exists = found.contains(operation.shard);
        if ((operation.kind == Kind::create_shard && exists) ||
            (operation.kind == Kind::delete_shard && !exists))
            model.apply(operation);
    }
    for (const auto& [id, shard] : model.shards) {
        if (found.erase(id) == 0) return fmt::format("shard {} is missing", id);
    }
    if (!found.empty()) return fmt::format("shard {} should not exist", *found.begin());

    for (auto& [shard_id, shard] : model.shards) {
        const auto generations = tray.generations(shard_id);
        const auto exists = [&](SnapSeq snap_seq) {
            return std::any_of(generations.begin(), generations.end(), [&](const auto& g) {
                return g.id.snap_seq == snap_seq && !g.nameless;
            });
        };
        for (const auto& [id, operation] : model.in_flight) {
            if (operation.shard != shard_id) continue;
            const bool made =
                operation.kind == Kind::create_generation && exists(operation.snap_seq);
            const bool deleted =
                operation.kind == Kind::delete_generation && !exists(operation.snap_seq);
            if (made || deleted) model.apply(operation);
        }
        for (const auto& generation : generations) {
            const auto expected = shard.generations.find(generation.id.snap_seq);
            if (expected == shard.generations.end()) {
                return fmt::format("shard {}: generation {} should not exist", shard_id,
                                   generation.id.snap_seq);
            }
            if (expected->second.nameless != generation.nameless ||
                expected->second.parent != generation.parent.snap_seq) {
                return fmt::format(
                    "shard {}: generation {} has parent {} nameless {}, expected {} {}", shard_id,
                    generation.id.snap_seq, generation.parent.snap_seq, generation.nameless,
                    expected->second.parent, expected->second.nameless);
            }
        }
        if (generations.size() != shard.generations.size()) {
            return fmt::format("shard {}: {} generations, expected {}", shard_id,
                               generations.size(), shard.generations.size());
        }
        const auto state = tray.shard_state(shard_id);
        if (!state || state->snap_seq != shard.head) {
            return fmt::format("shard {}: head {}, expected {}", shard_id,
                               state ? state->snap_seq : 0, shard.head);
        }
        const tray::Position last = tray.last_position(shard_id);
        if (last < shard.last) {
            return fmt::format("shard {}: last sequence {}, expected at least {}", shard_id,
                               last.sequence, shard.last.sequence);
        }
        shard.next_sequence = last.sequence + 1;
    }
    return {};
}

// The CRC of every block of a generation, as read. Blocks that the model has as holes and no
// unanswered write touches are not read; the tray must call them holes.
class View {
  public:
    View(tray::Tray& tray, const TrayModel& model, ShardId shard, SnapSeq snap_seq)
        : tray_(tray),
          shard_(shard),
          snap_seq_(snap_seq),
          blocks_(model.shards.at(shard).blocks),
          crcs_(blocks_, crc32c_of_zero_block()),
          wanted_(blocks_) {
        const ModelGeneration& generation = model.shards.at(shard).generations.at(snap_seq);
        for (const auto& [index, chunk] : generation.chunks) {
            const uint32_t first = index * blocks_per_chunk;
            for (uint32_t i = 0; i < blocks_per_chunk && first + i < blocks_; ++i) {
                wanted_[first + i] = (*chunk)[i] != hole_tag;
            }
        }
        for (const auto& [id, operation] : model.in_flight) {
            if (operation.kind != Kind::write || operation.shard != shard ||
                operation.snap_seq != snap_seq)
                continue;
            for (uint32_t i = 0; i < operation.count; ++i) wanted_[operation.block + i] = true;
        }
    }

    Task<std::string> read() {
        auto states = co_await tray_.block_states({shard_, snap_seq_}, 0, blocks_);
        if (!states) co_return "block_states: " + states.error().text();
        uint32_t block = 0;
        for (const auto& run : *states) {
            for (uint32_t i = 0; i < run.count; ++i, ++block) {
                if (!wanted_[block] && run.state != tray::BlockState::hole) {
                    co_return fmt::format("block {} should be a hole", block);
                }
            }
        }
        if (block != blocks_)
            co_return fmt::format("block_states covers {} of {} blocks", block, blocks_);
        for (uint32_t first = 0; first < blocks_;) {
            uint32_t end = first;
            const uint32_t chunk_end =
                std::min(blocks_, (first / blocks_per_chunk + 1) * blocks_per_chunk);
            while (end < chunk_end && wanted_[end]) ++end;
            if (end > first) {
                std::string wrong = co_await read_run(first, end - first);
                if (!wrong.empty()) co_return wrong;
            }
            first = std::max(end, first + 1);
        }
        co_return std::string();
    }

    [[nodiscard]] uint32_t crc(uint32_t block) const { return crcs_[block]; }

  private:
    Task<std::string> read_run(uint32_t first, uint32_t count) {
        auto buffer =
            co_await runtime::Reactor::current().buffers().allocate(size_t{count} * block_bytes);
        tray::ReadRequest request;
        request.shard = shard_;
        request.snap_seq = snap_seq_;
        request.block = first;
        request.count = count;
        request.to = buffer.bytes();
        request.crcs = std::span(crcs_).subspan(first, count);
        Status done = co_await tray_.read(request);
        if (!done) co_return fmt::format("blocks {}+{}: {}", first, count, done.error().text());
        for (uint32_t i = 0; i < count; ++i) {
            const uint32_t own =
                crc32c(buffer.bytes().subspan(size_t{i} * block_bytes, block_bytes));
            if (own != crcs_[first + i])
                co_return fmt::format("block {} does not match the CRC given", first + i);
        }
        co_return std::string();
    }

    tray::Tray& tray_;
    ShardId shard_;
    SnapSeq snap_seq_;
    uint32_t blocks_;
    std::vector<uint32_t> crcs_;
    std::vector<bool> wanted_;
};

// Decides for one write in flight whether it is there whole, or not at all.
std::string settle_write(tray::Tray& tray, TrayModel& model, const ModelOperation& operation,
                         const View& view) {
    ModelShard& shard = model.shards.at(operation.shard);
    const ModelGeneration& generation = shard.generations.at(operation.snap_seq);
    uint32_t new_matches = 0, old_matches = 0;
    for (uint32_t i = 0; i < operation.count; ++i) {
        const uint32_t block = operation.block + i;
        const uint32_t crc = view.crc(block);
        if (crc == block_crc(operation.tag_of(block))) ++new_matches;
        if (crc == block_crc(generation.at(block))) ++old_matches;
    }
    const bool is_new = new_matches == operation.count, is_old = old_matches == operation.count;
    if (!is_new && !is_old) {
        return fmt::format(
            "shard {} block {}+{}: unanswered write is there in part ({} new, {} old)",
            operation.shard, operation.block, operation.count, new_matches, old_matches);
    }
    if (operation.durable && !is_new) {
        return fmt::format("shard {} block {}+{}: a durable write is gone", operation.shard,
                           operation.block, operation.count);
    }
    // Zeros over zeros look the same either way: then the request table says which it was.
    const bool known =
        tray.request_state(operation.shard, operation.request) == tray::RequestState::applied;
    if (is_new && is_old) {
        if (known) model.apply(operation);
        return {};
    }
    if (known != is_new) {
        return fmt::format("shard {} request {}: data says {}, the request table says {}",
                           operation.shard, operation.request.request, is_new, known);
    }
    if (is_new) model.apply(operation);
    return {};
}

Task<std::string> check_view(tray::Tray& tray, TrayModel& model, ShardId shard, SnapSeq snap_seq) {
    View view(tray, model, shard, snap_seq);
    std::string wrong = co_await view.read();
    if (!wrong.empty()) co_return wrong;
    for (const auto& [id, operation] : model.in_flight) {
        if (operation.kind != Kind::write || operation.shard != shard ||
            operation.snap_seq != snap_seq)
            continue;
        wrong = settle_write(tray, model, operation, view);
        if (!wrong.empty()) co_return wrong;
    }
    for (const auto& [index, chunk] : model.shards.at(shard).generations.at(snap_seq).chunks) {
        const uint32_t first = index * blocks_per_chunk;
        const uint32_t count = std::min(blocks_per_chunk, model.shards.at(shard).blocks - first);
        for (uint32_t i = 0; i < count; ++i) {
            if (view.crc(first + i) != block_crc((*chunk)[i])) {
                co_return fmt::format("block {}: other contents than written", first + i);
            }
        }
    }
    co_return std::string();
}

// A void that was not answered stands or does not.
void settle_voids(tray::Tray& tray, TrayModel& model) {
    for (const auto& [id, operation] : model.in_flight) {
        if (operation.kind != Kind::void_request) continue;
        const auto state = tray.request_state(operation.shard, operation.request);
        if (state == tray::RequestState::voided) model.apply(operation);
    }
}

std::string check_requests(tray::Tray& tray, const TrayModel& model) {
    for (const auto& [shard_id, shard] : model.shards) {
        for (const auto& [session, requests] : shard.sessions) {
            for (const auto& [request, applied] : requests) {
                const tray::RequestName name{session, request, request};
                const auto expected =
                    applied ? tray::RequestState::applied : tray::RequestState::voided;
                if (tray.request_state(shard_id, name) != expected) {
                    return fmt::format("shard {} session {} request {}: answered, but not known {}",
                                       shard_id, session, request, applied ? "as applied" : "void");
                }
            }
        }
    }
    return {};
}

std::string check_space(const tray::Usage& usage, const TrayModel& model) {
    const uint64_t expected = model.user_blocks();
    if (usage.user_blocks != expected) {
        return fmt::format("{} blocks are mapped, expected {}", usage.user_blocks, expected);
    }
    const uint64_t total =
        usage.free_blocks + usage.user_blocks + usage.metadata_blocks + usage.held_blocks;
    if (total != usage.capacity_blocks) {
        return fmt::format("space does not add up: free {} + user {} + metadata {} + held {} != {}",
                           usage.free_blocks, usage.user_blocks, usage.metadata_blocks,
                           usage.held_blocks, usage.capacity_blocks);
    }
    if (usage.held_blocks != 0)
        return fmt::format("{} blocks are held on an idle tray", usage.held_blocks);
    return {};
}

}  // namespace

Task<std::string> check_and_settle(tray::Tray& tray, TrayModel& model) {
    // Deleted generations are collected in the background; until then a child still names its
    // parent.
    std::string wrong;
    for (int attempt = 0; attempt < 1000; ++attempt) {
        TrayModel settled = model;
        wrong = settle_structure(tray, settled);
        if (wrong.empty()) {
            model = std::move(settled);
            break;
        }
        co_await runtime::sleep_for(20 * runtime::milliseconds);
    }
    if (!wrong.empty()) co_return wrong;

    for (auto& [shard_id, shard] : model.shards) {
        std::vector<SnapSeq> order;
        // A nameless generation (S1) only lends its blocks to its children; nobody can read it.
        for (const auto& [snap_seq, generation] : shard.generations) {
            if (!generation.nameless) order.push_back(snap_seq);
        }
        for (const SnapSeq snap_seq : order) {
            wrong = co_await check_view(tray, model, shard_id, snap_seq);
            if (!wrong.empty())
                co_return fmt::format("shard {} generation {}: {}", shard_id, snap_seq, wrong);
        }
    }
    settle_voids(tray, model);
    model.in_flight.clear();
    wrong = check_requests(tray, model);
    if (!wrong.empty()) co_return wrong;
    // What a deleted generation or shard had alone is freed step by step, with tables that are
    // read.
    for (int wait = 0; wait < 1000 && tray.usage().user_blocks != model.user_blocks(); ++wait) {
        co_await runtime::sleep_for(20 * runtime::milliseconds);
    }
    // Freed blocks are held until an idle tray has confirmed its tail (T3, T6), and what a deleted
    // generation freed until a checkpoint no longer refers to it (T4). One whenever nothing has
    // moved for 2 s, as each frees blocks of its own, and trims may be slow.
    uint64_t held = tray.usage().held_blocks;
    for (int wait = 0, still = 0; wait < 10'000 && held != 0; ++wait) {
        if (still % 100 == 0) {
            Status done = co_await tray.checkpoint();
            if (!done) co_return "checkpoint: " + done.error().text();
        }
        co_await runtime::sleep_for(20 * runtime::milliseconds);
        const uint64_t before = std::exchange(held, tray.usage().held_blocks);
        still = held == before ? still + 1 : 1;
    }
    co_return check_space(tray.usage(), model);
}

}  // namespace pf::test
