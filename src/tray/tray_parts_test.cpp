// Goal: the parts of the tray that have a simple model of their own behave like it: allocator,
// sessions, held blocks, formats. Method: properties over random input.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <set>

#include "tray/allocator.hpp"
#include "tray/held_blocks.hpp"
#include "tray/mapped_blocks.hpp"
#include "tray/sessions.hpp"
#include "tray/state_format.hpp"

namespace pf::tray {
namespace {

Superblock small_tray() {
    Superblock superblock = *choose_geometry(uint64_t{16} << 20, uint64_t{64} << 10);
    superblock.nonce = 42;
    return superblock;
}

TEST(Allocator, GivesEachBlockOnceAndCountsExactly) {
    EXPECT_TRUE(rc::check("allocator against a set", [] {
        constexpr Address start = 100;
        const auto size = *rc::gen::inRange(1u, 20000u);
        Allocator allocator(start, start + size);
        std::set<Address> used;
        const auto steps =
            *rc::gen::container<std::vector<uint32_t>>(200, rc::gen::inRange(0u, 1u << 30));
        std::vector<Extent> extents(max_write_blocks);
        std::vector<Extent> taken;
        for (const uint32_t step : steps) {
            if (step % 3 != 0 || taken.empty()) {
                const uint32_t count = 1 + step / 3 % max_write_blocks;
                if (allocator.free_blocks() < count) continue;
                const auto purpose =
                    step % 2 == 0 ? Allocator::Purpose::data : Allocator::Purpose::metadata;
                const uint32_t parts = allocator.allocate(count, extents.data(), purpose);
                uint32_t total = 0;
                for (uint32_t i = 0; i < parts; ++i) {
                    for (uint32_t k = 0; k < extents[i].count; ++k, ++total) {
                        RC_ASSERT(extents[i].start + k < start + size);
                        RC_ASSERT(used.insert(extents[i].start + k).second);
                    }
                    taken.push_back(extents[i]);
                }
                RC_ASSERT(total == count);
            } else {
                const size_t index = step / 3 % taken.size();
                const Extent extent = taken[index];
                taken.erase(taken.begin() + static_cast<ptrdiff_t>(index));
                allocator.free(extent.start, extent.count);
                for (uint32_t k = 0; k < extent.count; ++k) used.erase(extent.start + k);
            }
            RC_ASSERT(allocator.free_blocks() == size - used.size());
        }
        for (Address at = start; at < start + size; ++at) {
            RC_ASSERT(allocator.is_used(at) == used.contains(at));
        }
    }));
}

TEST(Allocator, OneWriteIsOneExtentWhileThereIsRoom) {
    Allocator allocator(0, 100000);
    std::vector<Extent> extents(max_write_blocks);
    for (int i = 0; i < 300; ++i) EXPECT_EQ(allocator.allocate(257, extents.data()), 1u);
}

// T4: what a checkpoint writes is the bitmap at its cut, whatever changes while it is written.
TEST(MappedBlocks, ACheckpointTakesTheBitmapOfItsCut) {
    EXPECT_TRUE(rc::check("bitmap against sets", [] {
        const Superblock superblock = *choose_geometry(uint64_t{600} << 20, 0);
        MappedBlocks mapped(superblock);
        RC_ASSERT(mapped.page_count() == 5u);
        std::set<Address> now, cut;
        std::vector<std::set<Address>> stored(mapped.page_count());  // by page
        std::vector<uint32_t> to_write;
        const auto page_of = [&](Address address) {
            return (address - superblock.data_start) / blocks_per_bitmap_page;
        };
        const auto write_page = [&] {
            const uint32_t page = to_write.back();
            to_write.pop_back();
            std::vector<std::byte> payload(meta_payload_bytes);
            mapped.take_page(page, payload);
            const auto bits = decode_bitmap(payload, page, superblock);
            RC_ASSERT(bits.has_value());
            MappedBlocks read(superblock);
            read.restore(page, {superblock.data_start, 0}, **bits);
            stored[page].clear();
            for (const Address address : cut) {
                if (page_of(address) == page) stored[page].insert(address);
            }
            RC_ASSERT(read.count() == stored[page].size());
            for (const Address address : stored[page]) RC_ASSERT(read.is_set(address));
        };
        const auto steps =
            *rc::gen::container<std::vector<uint32_t>>(200, rc::gen::inRange(0u, 1u << 30));
        bool running = false;
        for (const uint32_t step : steps) {
            const uint32_t size = superblock.data_end - superblock.data_start;
            const Address address = superblock.data_start + (step / 8 * 977) % size;
            if (step % 8 == 0 && !running) {
                mapped.begin_checkpoint();
                to_write = mapped.writing_pages();
                cut = now;
                running = true;
            } else if (step % 8 == 1 && running) {
                if (!to_write.empty()) {
                    write_page();
                    continue;
                }
                mapped.end_checkpoint();
                running = false;
                // Every page is stored as of the cut, written now or earlier.
                size_t all = 0;
                for (const auto& page : stored) all += page.size();
                RC_ASSERT(all == cut.size());
            } else if (now.insert(address).second) {
                mapped.set(address);
            } else {
                now.erase(address);
                mapped.clear(address);
            }
            RC_ASSERT(mapped.count() == now.size());
        }
    }));
}

// T7: a block with two owners stays until both have let go of it.
TEST(MappedBlocks, ASharedBlockHasSeveralOwners) {
    MappedBlocks mapped(small_tray());
    const Address address = small_tray().data_start + 70;
    mapped.allow_sharing();
    mapped.set(address);
    mapped.set(address);
    mapped.clear(address);
    EXPECT_TRUE(mapped.is_set(address));
    mapped.clear(address);
    EXPECT_FALSE(mapped.is_set(address));
    EXPECT_EQ(mapped.count(), 0u);
}

TEST(Format, BitmapPagesEndWithTheTray) {
    const Superblock superblock = small_tray();
    std::vector<std::byte> payload(meta_payload_bytes);
    const uint32_t blocks = superblock.data_end - superblock.data_start;
    payload[(blocks - 1) / 8] = std::byte{1} << ((blocks - 1) % 8);
    EXPECT_TRUE(decode_bitmap(payload, 0, superblock));
    payload[blocks / 8] |= std::byte{1} << (blocks % 8);
    EXPECT_FALSE(decode_bitmap(payload, 0, superblock));
    EXPECT_FALSE(decode_bitmap(Bytes(payload).first(4000), 0, superblock));
}

TEST(Sessions, RememberExactlyTheWindow) {
    EXPECT_TRUE(rc::check("sessions against a map", [] {
        Sessions sessions;
        RC_ASSERT(sessions.open(5));
        std::map<uint64_t, RequestState> model;
        uint64_t lowest = 1;
        const auto steps =
            *rc::gen::container<std::vector<uint32_t>>(300, rc::gen::inRange(0u, 1u << 20));
        for (const uint32_t step : steps) {
            if (step % 4 == 0) lowest += step / 4 % 300;
            const RequestName request{5, lowest + step / 4 % session_window, lowest};
            RC_ASSERT(Sessions::in_window(request));
            if (step % 5 == 0)
                sessions.mark_voided(request);
            else
                sessions.mark_applied(request);
            auto [at, made] = model.try_emplace(request.request, RequestState::voided);
            if (step % 5 != 0) at->second = RequestState::applied;
            model.erase(model.begin(), model.lower_bound(lowest));
            for (uint64_t id = lowest; id < lowest + session_window; ++id) {
                const auto found = model.find(id);
                RC_ASSERT(sessions.state({5, id, lowest}) ==
                          (found == model.end() ? RequestState::not_applied : found->second));
            }
        }
        sessions.close(5);
        RC_ASSERT(sessions.state({5, lowest, 0}) == RequestState::unknown_session);
    }));
}

TEST(Sessions, AreLimited) {
    Sessions sessions;
    for (uint64_t id = 1; id <= session_limit; ++id) EXPECT_TRUE(sessions.open(id));
    EXPECT_TRUE(sessions.open(1));
    EXPECT_FALSE(sessions.open(session_limit + 1));
}

// T3: neither before the confirmed watermark nor under a reader.
TEST(HeldBlocks, WaitForWatermarkAndReaders) {
    HeldBlocks held;
    std::vector<Address> released;
    const auto release = [&](uint64_t recorded) {
        held.release(recorded, [&](Extent extent) { released.push_back(extent.start); });
    };
    ReadHold before;
    held.begin_read(before);
    held.hold({10, 1}, 5);
    ReadHold after;
    held.begin_read(after);
    release(4);
    release(5);
    EXPECT_TRUE(released.empty());
    before.unlink();
    release(4);
    EXPECT_TRUE(released.empty());
    release(5);
    EXPECT_EQ(released, std::vector<Address>{10});
    held.hold_for_next_checkpoint({20, 2});
    held.checkpoint_is_durable();
    EXPECT_EQ(held.checkpoint_blocks(), 2u);
    held.begin_checkpoint();
    held.hold_for_next_checkpoint({30, 1});
    held.checkpoint_is_durable();
    release(0);
    EXPECT_EQ(released.size(), 1u);  // the second reader is still there
    after.unlink();
    release(0);
    EXPECT_EQ(released.back(), 20u);
    EXPECT_EQ(held.checkpoint_blocks(), 1u);
    EXPECT_EQ(held.blocks(), 0u);
}

TEST(Format, SuperblockAndRootRoundTripAndRejectEveryFlippedBit) {
    const Superblock superblock = small_tray();
    std::vector<std::byte> block(block_bytes);
    encode_superblock(superblock, block);
    EXPECT_EQ(*decode_superblock(block), superblock);
    for (size_t bit = 0; bit < 512 * 8; ++bit) {
        block[bit / 8] ^= std::byte{1} << (bit % 8);
        EXPECT_FALSE(decode_superblock(block));
        block[bit / 8] ^= std::byte{1} << (bit % 8);
    }
    Root root;
    root.number = 9;
    root.log_start = 77;
    root.state = {superblock.data_start + 1, 5};
    encode_root(root, superblock.tag(), block);
    EXPECT_EQ(decode_root(block, superblock)->log_start, 77u);
    for (size_t bit = 0; bit < 512 * 8; ++bit) {
        block[bit / 8] ^= std::byte{1} << (bit % 8);
        EXPECT_FALSE(decode_root(block, superblock));
        block[bit / 8] ^= std::byte{1} << (bit % 8);
    }
}

TEST(Format, RecordsRoundTrip) {
    const Superblock superblock = small_tray();
    EXPECT_TRUE(rc::check("write records", [&] {
        const auto count = *rc::gen::inRange(1u, max_write_blocks + 1);
        std::vector<Extent> extents;
        std::vector<uint32_t> crcs;
        for (uint32_t i = 0; i < count; ++i) {
            crcs.push_back(*rc::gen::arbitrary<uint32_t>());
            extents.push_back({superblock.data_start + i * 2, 1});
        }
        WriteRecord record;
        record.shard = *rc::gen::inRange<uint64_t>(1, 1000);
        record.snap_seq = 3;
        record.position = {4, *rc::gen::arbitrary<uint64_t>()};
        record.request = {1, 2, 3};
        record.block = 512;
        record.count = count;
        record.extents = extents;
        record.crcs = std::as_bytes(std::span(crcs));
        std::vector<std::byte> block(block_bytes);
        const MutableBytes room = MutableBytes(block).subspan(sizeof(LogHeaderFormat));
        const uint32_t used = encode_record(record, room);
        LogHeader header;
        header.sequence = 12;
        header.data_confirmed = 11;
        seal_log_block(header, superblock.tag(), used, block);
        const Result<LogBlock> decoded = decode_log_block(block, superblock);
        RC_ASSERT(decoded.has_value());
        RC_ASSERT(decoded->header.data_confirmed == 11u);
        Bytes records = decoded->records;
        const Result<Record> again = take_record(records, superblock);
        RC_ASSERT(again.has_value());
        RC_ASSERT(records.empty());
        const auto& write = std::get<WriteRecord>(*again);
        RC_ASSERT(write.position == record.position);
        RC_ASSERT(write.extents.size() == count);
        for (uint32_t i = 0; i < count; ++i) RC_ASSERT(write.crc(i) == crcs[i]);
    }));
}

TEST(Format, GeometryNamesWhatIsAllowed) {
    EXPECT_TRUE(choose_geometry(uint64_t{16} << 20, uint64_t{64} << 10));
    EXPECT_EQ(choose_geometry(uint64_t{1} << 40, 0)->log_blocks, (1u << 30) / block_bytes);
    for (const auto& [size, log] :
         std::vector<std::pair<uint64_t, uint64_t>>{{uint64_t{1} << 20, 0},
                                                    {uint64_t{64} << 20, 4095},
                                                    {uint64_t{64} << 20, 4096},
                                                    {uint64_t{17} << 40, 0},
                                                    {0, 0}}) {
        const auto refused = choose_geometry(size, log);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, Errc::invalid_argument);
        EXPECT_FALSE(refused.error().message.empty());
    }
}

}  // namespace
}  // namespace pf::tray
