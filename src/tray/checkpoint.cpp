#include "tray/checkpoint.hpp"

#include <algorithm>

#include "base/crc32c.hpp"
#include "base/planted.hpp"
#include "tray/engine.hpp"
#include "tray/state_format.hpp"

namespace pf::tray {

using runtime::Task;

void Checkpointer::request() {
    requested_ = true;
    wake_.wake_one();
}

Task<void> Checkpointer::run_loop() {
    while (!engine_.stopping_) {
        if (!requested_ || engine_.failed_) {
            co_await wake_.wait();
            continue;
        }
        requested_ = false;
        const Status done = co_await run(true);
        // A failed checkpoint has failed the tray; there is nobody else to tell.
        PF_ASSERT(done || engine_.failed_ || engine_.stopping_);
    }
    --engine_.loops_;
}

Task<Status> Checkpointer::run(bool paced) {
    co_await engine_.maintenance_.lock();
    if (engine_.stopping_) {
        engine_.maintenance_.unlock();
        co_return fail(Errc::cancelled);
    }
    const Status result = co_await run_locked(paced);
    engine_.maintenance_.unlock();
    co_return result;
}

Task<Status> Checkpointer::run_last() {
    co_await engine_.maintenance_.lock();
    const Status result = co_await run_locked(false);
    engine_.maintenance_.unlock();
    co_return result;
}

runtime::Nanos Checkpointer::busy() const {
    return busy_ + (running_on_ != nullptr ? running_on_->now() - running_since_ : 0);
}

Task<Status> Checkpointer::run_locked(bool paced) {
    running_on_ = &runtime::Reactor::current();
    running_since_ = running_on_->now();
    const Status result = co_await run_timed(paced);
    busy_ = busy();
    running_on_ = nullptr;
    co_return result;
}

Task<Status> Checkpointer::run_timed(bool paced) {
    LogWriter& log = engine_.log_;
    Root root = engine_.root_;
    root.log_start = log.close_gate();
    root.log_previous = log.last_crc();
    while (!engine_.failed_ && log.confirmed() + 1 < root.log_start) {
        co_await engine_.advanced_.wait();
    }
    if (planted("checkpoint_records_wrong_position")) {
        root.log_start = log.next_sequence();
        root.log_previous = log.last_crc();
    }
    // What was just acked is usually committed in the same turn: then it is not logged again.
    constexpr int turns = 3;
    for (int i = 0; i < turns; ++i) co_await runtime::yield();
    // T8 keeps room for a whole checkpoint; held blocks may still be on their way to be part of it.
    bool begun = false;
    while (!engine_.failed_ && !(begun = begin())) {
        if (engine_.held_.blocks() + engine_.trimming_blocks_ == 0) break;
        log.request_watermarks();
        co_await engine_.advanced_.wait();
    }
    Status result = fail(Errc::no_space, "no room is left for a checkpoint");
    if (engine_.failed_) result = fail(Errc::io_error);
    if (begun && !engine_.failed_) {
        log_uncommitted_again(root.log_start);
        log.open_gate();
        result = co_await write_all(paced, root);
    }
    if (result) {
        // A log block that names the root, before anything the old one needs is given up (T9).
        log.set_root(engine_.root_.number, log.log_start());
        const uint64_t marker = log.next_sequence();
        log.request_marker();
        while (!engine_.failed_ && log.durable() < marker) co_await engine_.advanced_.wait();
        log.set_root(engine_.root_.number, engine_.root_.log_start);
        engine_.held_.checkpoint_is_durable();
        std::erase_if(engine_.dropped_shards_,
                      [&](const auto& dropped) { return dropped.second <= engine_.root_.number; });
        engine_.release_held();
        ++engine_.rooms_given_back_;
        engine_.advanced_.wake_all();
        co_await engine_.cache_.shrink_all();  // what was written may be dropped
        if (engine_.failed_) result = fail(Errc::io_error);
    } else {
        log.fail();
    }
    logged_again_.clear();
    co_return result;
}

Task<Status> Checkpointer::run_at_mount(uint64_t log_start, uint32_t log_previous) {
    Root root = engine_.root_;
    root.incarnation = engine_.root_.incarnation + 1;
    root.log_start = log_start;
    root.log_previous = log_previous;
    if (!begin()) co_return fail(Errc::no_space, "no room is left for a checkpoint");
    PF_CO_TRY(co_await write_all(false, root));
    engine_.held_.checkpoint_is_durable();
    co_return Status{};
}

// Takes over what is dirty: from here on this checkpoint is fixed. False: no room for it now.
bool Checkpointer::begin() {
    Directory& directory = engine_.map_.directory();
    encode_state();
    MappedBlocks& mapped = engine_.map_.mapped();
    const uint64_t blocks = directory.dirty_tables() + directory.dirty_pages() + state_.size() +
                            directory.pages().size() / links_per_index_block + 1 +
                            mapped.dirty_pages() + mapped.index_blocks();
    if (engine_.allocator_.free_blocks() < blocks) return false;
    take_room(blocks);
    epoch_ = directory.begin_checkpoint();
    mapped.begin_checkpoint();
    engine_.held_.begin_checkpoint();
    return true;
}

void Checkpointer::take_room(uint64_t blocks) {
    PF_ASSERT(next_room_ == room_.size());
    room_.resize(blocks);
    room_.resize(engine_.allocator_.allocate(static_cast<uint32_t>(blocks), room_.data(),
                                             Allocator::Purpose::metadata));
    next_room_ = 0;
    engine_.metadata_blocks_ += blocks;
}

// Tables that went away after the cut were not written.
void Checkpointer::give_back_room() {
    for (; next_room_ < room_.size(); ++next_room_) {
        const Extent& unused = room_[next_room_];
        engine_.allocator_.free(unused.start, unused.count);
        engine_.metadata_blocks_ -= unused.count;
    }
}

// Returns the number of extents.
uint32_t Checkpointer::allocate(uint32_t blocks, Extent* to) {
    uint32_t extents = 0;
    while (blocks > 0) {
        PF_ASSERT(next_room_ < room_.size());
        Extent& first = room_[next_room_];
        const uint32_t count = std::min(blocks, first.count);
        to[extents++] = {first.start, count};
        first.start += count;
        first.count -= count;
        blocks -= count;
        if (first.count == 0) ++next_room_;
    }
    return extents;
}

void Checkpointer::encode_state() {
    StateEncoder encoder;
    const auto& shards = engine_.map_.shards();
    for (const auto& [id, shard] : shards) {
        ShardStateRecord record;
        record.state = shard->state;
        record.highest_snap_seq = shard->highest_snap_seq;
        record.last = shard->last;
        record.committed = shard->committed;
        record.deleted = shard->deleted;
        encoder.add(record);
    }
    for (const auto& [id, shard] : shards) {
        for (const auto& [snap_seq, generation] : shard->generations) {
            GenerationStateRecord record;
            record.id = generation->id;
            if (generation->parent != nullptr) record.parent = generation->parent->id;
            record.own_blocks = generation->own_blocks;
            record.deleted = generation->deleted;
            encoder.add(record);
        }
    }
    for (const auto& [id, shard] : shards) {
        for (const Session& session : shard->sessions.all()) {
            SessionStateRecord record;
            record.shard = id;
            record.session = session;
            if (planted("forget_request_ids_on_checkpoint")) record.session.applied.fill(0);
            if (planted("forget_voids_on_checkpoint")) record.session.voided.fill(0);
            encoder.add(record);
        }
    }
    state_ = encoder.take();
}

void Checkpointer::log_uncommitted_again(uint64_t before) {
    for (const auto& [id, shard] : engine_.map_.shards()) {
        auto& list = shard->uncommitted;
        for (ShardLink* link = list.front(); link != nullptr; link = list.next(*link)) {
            PendingWrite& write = *link->write;
            if (!write.durable || write.sequence >= before) continue;
            if (planted("uncommitted_not_logged_again")) continue;
            write.moved_in_log = true;
            auto item = std::make_unique<LoggedAgain>();
            item->encoded.resize(write.bytes);
            item->bytes = encode_record(write.record(true), item->encoded);
            item->checkpointer = this;
            item->encode = [](LogItem& self, MutableBytes to) {
                const auto& encoded = static_cast<LoggedAgain&>(self).encoded;
                std::ranges::copy(encoded, to.begin());
                return static_cast<uint32_t>(encoded.size());
            };
            item->completed = [](LogItem& self, bool) {
                auto& again = static_cast<LoggedAgain&>(self);
                again.finished = true;
                again.checkpointer->engine_.advanced_.wake_all();
            };
            engine_.log_.submit(*item, LogRank::internal);
            logged_again_.push_back(std::move(item));
        }
    }
}

Task<Status> Checkpointer::wait_logged_again() {
    for (const auto& item : logged_again_) {
        while (!item->finished) co_await engine_.advanced_.wait();
    }
    if (engine_.failed_) co_return fail(Errc::io_error);
    co_return Status{};
}

Task<Status> Checkpointer::write_all(bool paced, Root root) {
    Directory& directory = engine_.map_.directory();
    const size_t buffer_bytes = size_t{batch_tables} * block_bytes;
    if (!buffer_) {
        buffer_ = co_await runtime::Reactor::current().buffers().allocate(buffer_bytes);
    }
    PF_CO_TRY(co_await write_tables(paced));
    PF_CO_TRY(co_await write_pages(paced));
    PF_CO_TRY(co_await write_bitmap(paced));

    std::vector<std::vector<std::byte>> index;
    root.directory_pages = 0;
    for (const DirectoryPage& page : directory.pages()) {
        if (page.stored.address == unmapped_address) continue;
        if (root.directory_pages++ % links_per_index_block == 0) index.emplace_back();
        const auto* bytes = reinterpret_cast<const std::byte*>(&page.stored);
        index.back().insert(index.back().end(), bytes, bytes + sizeof(page.stored));
    }
    PF_CO_TRY_ASSIGN(root.index, co_await write_chain(MetaKind::index, std::move(index)));
    PF_CO_TRY_ASSIGN(root.bitmap, co_await write_bitmap_index());
    PF_CO_TRY_ASSIGN(root.state, co_await write_chain(MetaKind::state, std::move(state_)));
    state_.clear();
    PF_CO_TRY(co_await wait_logged_again());

    // T4, T9: everything the root names is durable before the root, and the root before reuse.
    if (!planted("root_before_tables_flush")) PF_CO_TRY(co_await engine_.log_.flush());
    root.number = epoch_;
    encode_root(root, engine_.superblock_.tag(), buffer_.bytes().first(block_bytes));
    const auto slot = first_root_address + static_cast<Address>(root.number % root_slots);
    PF_CO_TRY(co_await engine_.disk_->write(uint64_t{slot} * block_bytes,
                                            buffer_.bytes().first(block_bytes)));
    const bool at_mount = root.incarnation != engine_.root_.incarnation;
    if (!at_mount || !planted("mount_root_not_flushed")) {
        PF_CO_TRY(co_await engine_.log_.flush());
    }

    for (const Address address : chain_blocks_) {
        engine_.held_.hold_for_this_checkpoint({address, 1});
        --engine_.metadata_blocks_;
    }
    chain_blocks_ = std::move(new_chain_blocks_);
    new_chain_blocks_.clear();
    engine_.root_ = root;
    directory.end_checkpoint();
    engine_.map_.mapped().end_checkpoint();
    give_back_room();
    ++completed_;
    engine_.measure_state();
    co_return Status{};
}

}  // namespace pf::tray
