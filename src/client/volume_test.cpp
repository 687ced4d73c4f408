// The client core against a conductor and a store in memory, in the simulator: what each operation
// does when nothing fails.
#include "client/client_test.hpp"

namespace pf::client {
namespace {

using runtime::Task;

Task<void> all_shapes(ClientTest& test) {
    Opened opened = co_await open_volume();
    Volume& volume = *opened.volume;
    struct Range {
        uint64_t offset;
        uint64_t length;
    };
    const Range ranges[] = {{0, 512},
                            {512, 512},
                            {3584, 1024},
                            {4096, 65536},
                            {512, 1u << 20},
                            {(2u << 20) - 512, 1024},
                            {(4u << 20) - 4096, 8192},
                            {0, test_volume_bytes},
                            {test_volume_bytes - 512, 512},
                            {1536, 5u << 20}};
    uint64_t seed = 0;
    for (const Range& range : ranges) {
        for (const size_t piece : {SIZE_MAX, size_t{4096}, size_t{1536}}) {
            const auto bytes = pattern(range.length, ++seed);
            TestIo io(IoKind::write, range.offset, bytes, piece);
            const Errc written = co_await run_io(volume, io);
            EXPECT_EQ(written, Errc::ok);
            EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(),
                                   test.tray.bytes.begin() + static_cast<long>(range.offset)));
            TestIo back(IoKind::read, range.offset, std::vector<std::byte>(range.length), piece);
            const Errc read = co_await run_io(volume, back);
            EXPECT_EQ(read, Errc::ok);
            EXPECT_TRUE(back.bytes == bytes) << range.offset << "+" << range.length;
        }
    }
    EXPECT_EQ(volume.counters().resent, 0u);
    co_await opened.close();
}
TEST_F(ClientTest, WritesAndReadsBackAllShapes) {
    run(all_shapes(*this));
    EXPECT_EQ(conductor.closed, 1u);
    EXPECT_EQ(tray.sessions.size(), 0u) << "sessions are closed";
}

using Place = std::pair<const std::byte*, size_t>;
Place place_of(const iovec& vector) {
    return {static_cast<const std::byte*>(vector.iov_base), vector.iov_len};
}

// In the order of addresses; what adjoins is one place.
std::vector<Place> merged(std::vector<Place> places) {
    std::ranges::sort(places);
    std::vector<Place> all;
    for (const Place& place : places) {
        if (!all.empty() && all.back().first + all.back().second == place.first) {
            all.back().second += place.second;
        } else {
            all.push_back(place);
        }
    }
    return all;
}

// What the connection is given to send names the user's own memory, every byte of it once. Beside
// that only headers and checksums go out: less than one block, so nothing was copied.
Task<void> sends_in_place(ClientTest& test, uint64_t offset, size_t entries, size_t entry_bytes) {
    Opened opened = co_await open_volume();
    // With gaps, so that no two entries could be sent as one.
    auto memory = pattern(entries * (entry_bytes + block_bytes), 1);
    std::vector<iovec> vectors;
    std::vector<std::byte> expected;
    for (size_t at = 0; at < memory.size(); at += entry_bytes + block_bytes) {
        vectors.push_back({memory.data() + at, entry_bytes});
        const auto entry = Bytes(memory).subspan(at, entry_bytes);
        expected.insert(expected.end(), entry.begin(), entry.end());
    }
    std::vector<Place> in_place;
    size_t other_bytes = 0;
    test.sim.network().on_send([&](const runtime::sim::SimNode& from, const runtime::StreamOp& op) {
        if (&from != &test.client) return;
        for (uint32_t i = 0; i < op.iov_count; ++i) {
            const Place sent = place_of(op.iov[i]);
            if (sent.first >= memory.data() && sent.first < memory.data() + memory.size()) {
                in_place.push_back(sent);
            } else {
                other_bytes += sent.second;
            }
        }
    });
    Io io;
    io.kind = IoKind::write;
    io.offset = offset;
    io.length = expected.size();
    io.data = vectors;
    const Errc written = co_await run_io(*opened.volume, io);
    test.sim.network().on_send(nullptr);
    EXPECT_EQ(written, Errc::ok);
    std::vector<Place> users(vectors.size());
    std::ranges::transform(vectors, users.begin(), place_of);
    EXPECT_TRUE(merged(in_place) == users) << offset << ": " << in_place.size() << " places";
    EXPECT_LT(other_bytes, block_bytes);
    EXPECT_TRUE(
        std::ranges::equal(expected, Bytes(test.tray.bytes).subspan(offset, expected.size())));
    co_await opened.close();
}
TEST_F(ClientTest, SendsAVectoredWriteFromTheUsersMemory) {
    run(sends_in_place(*this, 0, 1, 4096));
    run(sends_in_place(*this, 8192, 5, 8192));
    run(sends_in_place(*this, 0, 250, 4096));
    // The borders of a chunk, of a shard and of what one command carries, inside of entries.
    run(sends_in_place(*this, chunk_bytes - 4096, 4, 6144));
    run(sends_in_place(*this, test_shard_bytes - 8192, 6, 6144));
    run(sends_in_place(*this, 4096, 10, 160u << 10));
}

Task<void> few_connections(ClientTest& test) {
    Opened opened = co_await open_volume(16, 0, false, 1);
    Volume& volume = *opened.volume;
    std::vector<std::byte> expected(test_volume_bytes);
    for (uint64_t round = 0; round < 60; ++round) {
        const auto bytes = pattern(8192, round);
        // Every shard in turn, and across the border of two at times.
        const uint64_t offset = round % 7 == 6
                                    ? test_shard_bytes - 4096
                                    : round % 3 * test_shard_bytes + round * 8192 % (1u << 20);
        std::ranges::copy(bytes, expected.begin() + static_cast<long>(offset));
        TestIo io(IoKind::write, offset, bytes, SIZE_MAX);
        const Errc written = co_await run_io(volume, io);
        EXPECT_EQ(written, Errc::ok);
    }
    EXPECT_TRUE(test.tray.bytes == expected);
    EXPECT_EQ(volume.counters().resent, 0u);
    co_await opened.close();
}
TEST_F(ClientTest, EndsIdleConnectionsWhenItNeedsOthers) {
    run(few_connections(*this));
    // The one for the new shard is made while the idle one goes; a write over a border needs two.
    EXPECT_EQ(store.most_connected, 2u);
    EXPECT_EQ(store.sessions_opened, 3u) << "a session outlives its connection";
}

Task<void> zeroes_and_discards(ClientTest& test) {
    Opened opened = co_await open_volume();
    Volume& volume = *opened.volume;
    for (const IoKind kind : {IoKind::write_zeroes, IoKind::discard}) {
        std::vector<std::byte> expected = pattern(test_volume_bytes, 5);
        test.tray.bytes = expected;
        Io io;
        io.kind = kind;
        io.offset = 4096 * 3 + 512;
        io.length = (5u << 20) + 1024;
        const Errc done = co_await run_io(volume, io);
        EXPECT_EQ(done, Errc::ok);
        uint64_t begin = io.offset;
        uint64_t end = io.offset + io.length;
        if (kind == IoKind::discard) {
            begin = round_up(begin, block_bytes);
            end = round_down(end, block_bytes);
        }
        std::fill(expected.begin() + static_cast<long>(begin),
                  expected.begin() + static_cast<long>(end), std::byte{0});
        EXPECT_TRUE(test.tray.bytes == expected);
    }
    Io small;
    small.kind = IoKind::discard;
    small.offset = 512;
    small.length = 1024;
    const Errc done = co_await run_io(volume, small);
    EXPECT_EQ(done, Errc::ok);
    co_await opened.close();
}
TEST_F(ClientTest, ZeroesExactlyAndDiscardsWholeBlocks) {
    run(zeroes_and_discards(*this));
}

Task<void> refusals(ClientTest& test) {
    Opened opened = co_await open_volume();
    Volume& volume = *opened.volume;
    const auto refused = [&](IoKind kind, uint64_t offset, size_t length) {
        TestIo io(kind, offset, std::vector<std::byte>(length));
        const Status submitted = volume.submit(io);
        return submitted ? Errc::ok : submitted.error().code;
    };
    EXPECT_EQ(refused(IoKind::read, 0, 0), Errc::invalid_argument);
    EXPECT_EQ(refused(IoKind::write, 100, 512), Errc::invalid_argument);
    EXPECT_EQ(refused(IoKind::write, 0, 100), Errc::invalid_argument);
    EXPECT_EQ(refused(IoKind::read, test_volume_bytes, 512), Errc::out_of_range);
    EXPECT_EQ(refused(IoKind::read, UINT64_MAX - 511, 512), Errc::out_of_range);
    EXPECT_EQ(refused(IoKind::compare_and_write, 0, 4096), Errc::invalid_argument);
    co_await opened.close();
    Opened reader = co_await open_volume(16, 0, true);
    TestIo io(IoKind::write, 0, std::vector<std::byte>(512));
    const Status submitted = reader.volume->submit(io);
    EXPECT_EQ(submitted.error().code, Errc::read_only);
    TestIo back(IoKind::read, 0, std::vector<std::byte>(512));
    const Errc read = co_await run_io(*reader.volume, back);
    EXPECT_EQ(read, Errc::ok);
    co_await reader.close();
    EXPECT_EQ(test.store.sessions_opened, 0u);
}
TEST_F(ClientTest, RefusesWhatCanNotBe) {
    run(refusals(*this));
}

Task<void> compare_and_write(ClientTest& test) {
    Opened opened = co_await open_volume();
    for (const uint64_t offset : {uint64_t{0}, uint64_t{8192 + 512}}) {
        const auto old_bytes = pattern(64u << 10, 1);
        std::ranges::copy(old_bytes, test.tray.bytes.begin() + static_cast<long>(offset));
        for (const Errc expected : {Errc::ok, Errc::miscompare}) {
            TestIo io(IoKind::compare_and_write, offset, pattern(64u << 10, 2), 3072);
            TestIo compared(IoKind::read, offset, old_bytes, 5120);
            io.expected = compared.vectors;
            const Errc done = co_await run_io(*opened.volume, io);
            EXPECT_EQ(done, expected);
        }
    }
    co_await opened.close();
}
TEST_F(ClientTest, ComparesAndWrites) {
    run(compare_and_write(*this));
}

Task<void> states(ClientTest& test) {
    Opened opened = co_await open_volume();
    for (uint64_t block = 0; block < test_volume_bytes / block_bytes; block += 3)
        test.tray.bytes[block * block_bytes] = std::byte{1};
    auto extents = co_await opened.volume->block_states(512, test_volume_bytes - 1024, 100000);
    EXPECT_TRUE(extents.has_value());
    uint64_t total = 0;
    for (const Extent& extent : *extents) total += extent.length_bytes;
    EXPECT_EQ(total, test_volume_bytes - 1024);
    EXPECT_EQ((*extents)[0].length_bytes, block_bytes - 512);
    EXPECT_EQ((*extents)[0].state, 2u);
    EXPECT_EQ((*extents)[1].length_bytes, 2 * block_bytes);
    auto two = co_await opened.volume->block_states(0, test_volume_bytes, 2);
    EXPECT_EQ(two->size(), 2u);
    co_await opened.close();
}
TEST_F(ClientTest, TellsBlockStates) {
    run(states(*this));
}

// Block states took memory before they got in line: a read at its head that needed some, too,
// waited for ever, and all behind it.
class LittleMemory : public ClientTest {
  public:
    LittleMemory() : ClientTest({.buffer_bytes = size_t{2} << 20}) {}
};
Task<void> ask_states(Volume& volume, runtime::WaitGroup& asking) {
    const auto extents = co_await volume.block_states(0, 1u << 20, 1);
    EXPECT_TRUE(extents.has_value());
    asking.done();
}
Task<void> many_states(ClientTest& test) {
    Opened opened = co_await open_volume();
    runtime::WaitGroup asking;
    const auto ask = [&](int times) {
        for (int i = 0; i < times; ++i) {
            asking.add();
            runtime::Reactor::current().spawn(ask_states(*opened.volume, asking));
        }
    };
    test.store.hold_states = true;
    ask(100);
    co_await runtime::sleep_for(10 * runtime::milliseconds);
    Observed read(IoKind::read, 512, std::vector<std::byte>(32u << 10));
    read.watch();
    EXPECT_TRUE(opened.volume->submit(read).has_value());
    ask(100);
    test.store.hold_states = false;
    co_await asking.wait();
    EXPECT_TRUE(read.finished);
    co_await opened.close();
}
TEST_F(LittleMemory, regression_block_states_in_line_hold_no_memory) {
    run(many_states(*this));
}

Task<void> flushes(ClientTest& test) {
    Opened opened = co_await open_volume();
    Io flush;
    flush.kind = IoKind::flush;
    Errc done = co_await run_io(*opened.volume, flush);
    EXPECT_EQ(done, Errc::ok);
    test.store.delay_max = 10 * runtime::milliseconds;
    Observed first(IoKind::write, 0, pattern(3u << 20, 2));
    first.watch();
    EXPECT_TRUE(opened.volume->submit(first).has_value());
    done = co_await run_io(*opened.volume, flush);
    EXPECT_EQ(done, Errc::ok);
    EXPECT_TRUE(first.finished) << "a flush waits for the writes before it";
    co_await opened.close();
}
TEST_F(ClientTest, FlushWaitsForTheWritesBeforeIt) {
    run(flushes(*this));
}

struct Chain : Io {
    Volume* volume = nullptr;
    uint32_t completed = 0;
    bool stop = false;
};
Task<void> chains(IoKind kind) {
    Opened opened = co_await open_volume();
    Chain chain;
    chain.kind = kind;
    chain.length = kind == IoKind::flush ? 0 : 1024;
    chain.volume = opened.volume.get();
    chain.complete = [](Io& io) {
        auto& self = static_cast<Chain&>(io);
        if (self.stop || ++self.completed == 100'000) return;
        EXPECT_TRUE(self.volume->submit(self).has_value());
    };
    EXPECT_TRUE(opened.volume->submit(chain).has_value());
    co_await runtime::sleep_for(1);
    EXPECT_GT(chain.completed, 0u);
    EXPECT_LT(chain.completed, 100u);
    chain.stop = true;
    co_await opened.close();
}
TEST_F(ClientTest, regression_AChainOfFlushesLeavesTurnsToOthers) {
    run(chains(IoKind::flush));
}
TEST_F(ClientTest, regression_AChainOfDiscardsOfNothingLeavesTurnsToOthers) {
    run(chains(IoKind::discard));
}

}  // namespace
}  // namespace pf::client
