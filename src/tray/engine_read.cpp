// The read path: look up, read, verify.
#include <algorithm>

#include "base/crc32c.hpp"
#include "base/planted.hpp"
#include "tray/engine.hpp"

namespace pf::tray {

using runtime::Task;

namespace {

// co_await BatchDone(batch, disk): submits and waits for all parts.
class BatchDone {
  public:
    BatchDone(IoBatch& batch, runtime::Disk& disk) : batch_(batch), disk_(disk) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) {
        waiter_ = waiter;
        batch_.submit(
            disk_,
            [](void* context, int32_t result) {
                auto& self = *static_cast<BatchDone*>(context);
                self.result_ = result;
                runtime::schedule(self.waiter_);
            },
            this);
    }
    [[nodiscard]] int32_t await_resume() const noexcept { return result_; }

  private:
    IoBatch& batch_;
    runtime::Disk& disk_;
    std::coroutine_handle<> waiter_;
    int32_t result_ = 0;
};

}  // namespace

Status Engine::verify(MutableBytes data, std::span<const uint32_t> crcs) {
    if (planted("skip_crc_check_on_read")) return {};
    for (size_t i = 0; i < crcs.size(); ++i) {
        if (crc32c(data.subspan(i * block_bytes, block_bytes)) == crcs[i]) continue;
        ++counters_.checksum_errors;
        return fail(Errc::corrupt);
    }
    return {};
}

Task<Status> Engine::read(const ReadRequest& request) {
    if (failed_) co_return fail(Errc::io_error);
    const Shard* shard = map_.find(request.shard);
    if (shard == nullptr) co_return fail(Errc::not_found);
    if (shard->state.damaged) co_return fail(Errc::data_lost);
    PF_CO_TRY(check_range(*shard, request.block, request.count));
    const Generation* generation = map_.find_generation({request.shard, request.snap_seq});
    if (generation == nullptr || generation->deleted) co_return fail(Errc::not_found);
    PF_ASSERT(request.to.size() == size_t{request.count} * block_bytes);
    PF_ASSERT(request.crcs.size() == request.count);
    ++counters_.reads;
    counters_.blocks_read += request.count;

    const uint32_t chunk = request.block / blocks_per_chunk;
    ChunkVersion* version = map_.view(*generation, chunk);
    while (version != nullptr && version->table == nullptr) {
        PF_CO_TRY(co_await load(*version));
        generation = map_.find_generation({request.shard, request.snap_seq});
        if (generation == nullptr || generation->deleted) co_return fail(Errc::not_found);
        version = map_.view(*generation, chunk);
    }
    if (version != nullptr) cache_.touch(*version);
    const uint32_t first = request.block % blocks_per_chunk;
    IoBatch& batch = take_batch();
    Address next = unmapped_address;  // the address that would extend the last part
    for (uint32_t i = 0; i < request.count; ++i) {
        const MutableBytes to = request.to.subspan(size_t{i} * block_bytes, block_bytes);
        const TableEntry entry = version == nullptr ? TableEntry{unmapped_address, 0}
                                                    : version->table->entries[first + i];
        if (!is_data(entry.address)) {
            std::ranges::fill(to, std::byte{0});
            request.crcs[i] = crc32c_of_zero_block();
            next = unmapped_address;
            continue;
        }
        request.crcs[i] = entry.crc;
        if (entry.address == next) {
            batch.extend_memory(block_bytes);
        } else {
            batch.add_part(runtime::DiskOp::Kind::read, uint64_t{entry.address} * block_bytes);
            batch.add_memory(to.data(), to.size());
        }
        next = entry.address + 1;
    }
    if (batch.parts() == 0) {
        give_back_batch(batch);
        co_return Status{};
    }
    ReadHold hold;  // T12
    held_.begin_read(hold);
    ++operations_;
    BatchDone done(batch, *disk_);
    const int32_t result = co_await done;
    hold.unlink();
    if (held_.blocks() > 0) {
        release_held();
        advanced_.wake_all();  // a write may wait for just these
    }
    end_operation();
    Status status;
    if (result != 0) status = fail(Errc::io_error);
    for (uint32_t i = 0; i < batch.parts() && status; ++i) {
        auto* data = static_cast<std::byte*>(batch.memory_of(i));
        const size_t at = static_cast<size_t>(data - request.to.data()) / block_bytes;
        const size_t blocks = batch.part(i).length / block_bytes;
        status = verify({data, blocks * block_bytes}, request.crcs.subspan(at, blocks));
    }
    give_back_batch(batch);
    co_return status;
}

Task<Result<std::vector<BlockRun>>> Engine::block_states(GenerationId id, uint32_t block,
                                                         uint32_t count, uint32_t max_runs) {
    const Shard* shard = map_.find(id.shard);
    if (shard == nullptr) co_return fail(Errc::not_found);
    if (shard->state.damaged) co_return fail(Errc::data_lost);
    if (block >= shard->state.blocks || count > shard->state.blocks - block) {
        co_return fail(Errc::out_of_range);
    }
    std::vector<BlockRun> runs;
    bool full = false;
    const auto add = [&](uint32_t blocks, BlockState state) {
        if (!runs.empty() && runs.back().state == state)
            runs.back().count += blocks;
        else if (runs.size() < max_runs)
            runs.push_back({blocks, state});
        else
            full = true;
    };
    constexpr uint32_t chunks_per_turn = 64;
    for (uint32_t chunks = 0; count > 0 && !full; ++chunks) {
        if (chunks % chunks_per_turn == chunks_per_turn - 1) co_await runtime::yield();
        const Generation* generation = map_.find_generation(id);
        if (generation == nullptr || generation->deleted) co_return fail(Errc::not_found);
        const uint32_t index = block % blocks_per_chunk;
        const uint32_t here = std::min(count, blocks_per_chunk - index);
        ChunkVersion* version = map_.view(*generation, block / blocks_per_chunk);
        if (version != nullptr && version->table == nullptr) {
            PF_CO_TRY(co_await load(*version));
            continue;  // it may be gone, or another one
        }
        if (version == nullptr) {
            add(here, BlockState::hole);
        } else {
            for (uint32_t i = index; i < index + here && !full; ++i) {
                const Address address = version->table->entries[i].address;
                add(1, is_data(address)          ? BlockState::data
                       : address == zero_address ? BlockState::zero
                                                 : BlockState::hole);
            }
        }
        block += here;
        count -= here;
    }
    co_return runs;
}

}  // namespace pf::tray
