// How I/O is split at the borders of shards and chunks, and its checksums.
#include "client/split.hpp"

#include "client/client_test.hpp"

namespace pf::client {
namespace {

// Splitting: pieces cover the range exactly, in order, each inside a chunk and a command, and what
// can be atomic is one piece.
TEST(Split, PiecesCoverTheRange) {
    Rng rng(1);
    for (int round = 0; round < 20000; ++round) {
        const auto kind = static_cast<IoKind>(rng.below(6));
        if (kind == IoKind::flush || kind == IoKind::compare_and_write) continue;
        const uint64_t offset = rng.below(8u << 20) / sector_bytes * sector_bytes;
        const uint64_t length =
            (1 + rng.below(rng.chance_ppm(500'000) ? 64 : 12000)) * sector_bytes;
        uint64_t done = 0;
        int pieces = 0;
        for (; done < length; ++pieces) {
            const uint64_t at = offset + done;
            const Cut cut = first_piece(kind, at, length - done);
            ASSERT_GT(cut.length, 0u);
            ASSERT_LE(cut.length, length - done);
            ASSERT_EQ(at / chunk_bytes, (at + cut.length - 1) / chunk_bytes);
            const uint64_t widened =
                round_up(at + cut.length, block_bytes) - round_down(at, block_bytes);
            if (kind == IoKind::read) {
                ASSERT_LE(widened, wire::max_data_bytes);
            }
            if (kind == IoKind::write) {
                ASSERT_LE(cut.length, wire::max_data_bytes);
            }
            const bool whole = at % block_bytes == 0 && cut.length % block_bytes == 0;
            if (kind == IoKind::discard) {
                ASSERT_EQ(cut.nothing, !whole);
            }
            if (kind == IoKind::write_zeroes) {
                ASSERT_EQ(cut.zeroes_as_data, !whole);
            }
            done += cut.length;
        }
        if (kind == IoKind::write && length <= max_atomic_write_bytes &&
            offset / chunk_bytes == (offset + length - 1) / chunk_bytes) {
            ASSERT_EQ(pieces, 1);
        }
    }
}

TEST(Split, CrcsDoNotDependOnTheVectors) {
    const auto bytes = pattern(20000, 3);
    const iovec whole{const_cast<std::byte*>(bytes.data()), 8192 + 1024};
    std::vector<uint32_t> expected(4);
    block_crcs({&whole, 1}, 512, whole.iov_len, std::span(expected).first(3));
    EXPECT_EQ(expected[0], crc32c(Bytes(bytes).first(3584)));
    EXPECT_EQ(expected[1], crc32c(Bytes(bytes).subspan(3584, 4096)));
    std::vector<iovec> parts;
    for (size_t at = 0; at < whole.iov_len; at += 700)
        parts.push_back(
            {const_cast<std::byte*>(bytes.data()) + at, std::min<size_t>(700, whole.iov_len - at)});
    std::vector<uint32_t> again(3);
    block_crcs(parts, 512, whole.iov_len, again);
    EXPECT_TRUE(std::equal(again.begin(), again.end(), expected.begin()));
    std::vector<std::byte> copy(whole.iov_len);
    copy_block_crcs(copy, parts, 512, whole.iov_len, again);
    EXPECT_TRUE(std::equal(copy.begin(), copy.end(), bytes.begin()));
    EXPECT_TRUE(std::equal(again.begin(), again.end(), expected.begin()));
}

}  // namespace
}  // namespace pf::client
