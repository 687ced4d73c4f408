// Media and crash states: equal bytes have equal hashes, every subset appears, none that is
// illegal.
#include "runtime/sim/crash_enumerator.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <map>
#include <set>

#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {
namespace {

std::vector<std::byte> bytes_of(size_t count, unsigned char value) {
    return std::vector<std::byte>(count, std::byte{value});
}

UnflushedWrite write_of(uint64_t offset, size_t length, unsigned char value) {
    auto data = std::make_shared<WriteData>();
    data->offset = offset;
    data->length = length;
    for (size_t i = 0; i < length / block_bytes; ++i) {
        PageRef page;
        page.own().bytes.fill(std::byte{value});
        data->pages.push_back(page);
    }
    return {data, true, offset, false};
}

int value_at(const Medium& medium, uint64_t offset) {
    std::byte byte{};
    medium.read(offset, {&byte, 1});
    return static_cast<int>(byte);
}

TEST(Medium, ForksAreIndependentAndEqualBytesHashEqual) {
    Medium a(256 << 20);
    const uint64_t empty = a.hash();
    a.write(5000, bytes_of(10000, 3));
    a.write(200 << 20, bytes_of(4096, 4));
    const Medium b = a;
    EXPECT_EQ(a.hash(), b.hash());
    a.write(5000, bytes_of(1, 9));
    EXPECT_NE(a.hash(), b.hash());
    EXPECT_EQ(value_at(b, 5000), 3);
    a.write(5000, bytes_of(1, 3));
    EXPECT_EQ(a.hash(), b.hash());
    a.write(5000, bytes_of(10000, 0));
    a.erase(200 << 20, 4096);
    EXPECT_EQ(a.hash(), empty);
}

TEST(Medium, TheSameBytesElsewhereHashDifferently) {
    std::set<uint64_t> hashes;
    for (uint64_t i = 0; i < 1000; ++i) {
        Medium medium(64 << 20);
        medium.write(i * 16384, bytes_of(4096, 1));
        hashes.insert(medium.hash());
    }
    EXPECT_EQ(hashes.size(), 1000u);
}

TEST(CrashEnumerator, GivesEverySubsetOfAFewWrites) {
    CrashPoint point{Medium(1 << 20), {}};
    for (uint64_t i = 0; i < 6; ++i) {
        point.writes.push_back(write_of(i * 4096, 4096, static_cast<unsigned char>(i + 1)));
    }
    CrashEnumerator states(point, {.torn_per_write = 0, .samples = 0});
    EXPECT_EQ(states.total(), 64u);
    std::set<uint64_t> hashes;
    std::set<std::string> texts;
    while (auto state = states.next()) {
        hashes.insert(state->medium.hash());
        texts.insert(state->text());
        for (uint64_t i = 0; i < 6; ++i) {
            const bool kept = state->fates[i] == WriteFate::kept;
            EXPECT_EQ(value_at(state->medium, i * 4096), kept ? static_cast<int>(i + 1) : 0);
        }
    }
    EXPECT_EQ(hashes.size(), 64u);
    EXPECT_EQ(texts.size(), 64u);
}

TEST(CrashEnumerator, ALaterOverlappingWriteMayPersistAlone) {
    CrashPoint point{Medium(1 << 20), {write_of(0, 8192, 1), write_of(4096, 8192, 2)}};
    CrashEnumerator states(point, {.torn_per_write = 0, .samples = 0});
    std::set<std::vector<int>> seen;
    while (auto state = states.next()) {
        const Medium& medium = state->medium;
        seen.insert({value_at(medium, 0), value_at(medium, 4096), value_at(medium, 8192)});
    }
    EXPECT_EQ(seen, (std::set<std::vector<int>>{{0, 0, 0}, {1, 1, 0}, {0, 2, 2}, {1, 2, 2}}));
}

TEST(CrashEnumerator, TornWritesMixSectorsOfOldAndNew) {
    CrashPoint point{Medium(1 << 20), {write_of(0, 16384, 7)}};
    CrashEnumerator states(point, {.torn_per_write = 50, .samples = 0});
    size_t torn = 0;
    std::set<uint64_t> hashes;
    while (auto state = states.next()) {
        hashes.insert(state->medium.hash());
        if (state->fates[0] != WriteFate::torn) continue;
        ++torn;
        for (uint64_t at = 0; at < 16384; at += 512) {
            EXPECT_EQ(value_at(state->medium, at), value_at(state->medium, at + 511));
        }
    }
    EXPECT_EQ(torn, 50u);
    EXPECT_GT(hashes.size(), 30u);
}

TEST(CrashEnumerator, ManyWritesAreSampledTheSameWayEachTime) {
    CrashPoint point{Medium(64 << 20), {}};
    for (uint64_t i = 0; i < 200; ++i) point.writes.push_back(write_of(i * 8192, 8192, 1));
    const auto hashes_of = [&](uint64_t seed) {
        CrashEnumerator states(point, {.seed = seed});
        std::vector<uint64_t> hashes;
        while (auto state = states.next()) hashes.push_back(state->medium.hash());
        EXPECT_EQ(hashes.size(), states.total());
        return hashes;
    };
    const auto first = hashes_of(1);
    EXPECT_EQ(first, hashes_of(1));
    EXPECT_NE(first, hashes_of(2));
    EXPECT_GT(std::set<uint64_t>(first.begin(), first.end()).size(), first.size() * 9 / 10);
}

// The way a crash suite uses it: capture at every change, note what is durable, mount each state.
TEST(CrashEnumerator, EveryStateOfARunKeepsWhatWasFlushed) {
    Simulation sim({.seed = 3, .buffer_bytes = 2 << 20});
    SimNode& node = sim.add_node("a");
    SimDisk& device = node.add_disk("disk0", {.size_bytes = 1 << 20});
    std::map<uint64_t, int> flushed;  // offset -> value that must survive
    struct Captured {
        CrashPoint point;
        std::map<uint64_t, int> flushed;
    };
    std::vector<Captured> points;
    device.on_change([&](SimDisk& disk) { points.push_back({disk.capture(), flushed}); });
    node.start([&](SimReactor& reactor) {
        reactor.spawn([](SimReactor& self, std::map<uint64_t, int>& promised) -> Task<void> {
            auto disk = std::move(*co_await self.open_disk("disk0", {}));
            Buffer buffer = co_await self.buffers().allocate(4096);
            for (int i = 1; i <= 30; ++i) {
                std::memset(buffer.data(), i, 4096);
                const uint64_t offset = static_cast<uint64_t>(i) * 4096;
                const Status wrote = co_await disk->write(offset, buffer.bytes());
                EXPECT_TRUE(wrote);
                if (i % 3 != 0) continue;
                const Status synced = co_await disk->flush();
                EXPECT_TRUE(synced);
                for (int j = 1; j <= i; ++j) promised[static_cast<uint64_t>(j) * 4096] = j;
            }
        }(reactor, flushed));
        return nullptr;
    });
    sim.run_until_idle();
    node.kill();
    EXPECT_EQ(flushed.size(), 30u);
    std::set<uint64_t> seen;
    for (const Captured& captured : points) {
        CrashEnumerator states(captured.point);
        while (auto state = states.next()) {
            if (!seen.insert(state->medium.hash()).second) continue;
            device.replace(state->medium);
            for (const auto& [offset, value] : captured.flushed) {
                ASSERT_EQ(value_at(device.contents(), offset), value) << state->text();
            }
        }
    }
    EXPECT_GT(seen.size(), 100u);
}

TEST(CrashEnumerator, IsFast) {
    CrashPoint point{Medium(64 << 20), {}};
    point.durable.write(0, bytes_of(32 << 20, 1));
    for (uint64_t i = 0; i < 12; ++i) point.writes.push_back(write_of(i * 65536, 8192, 2));
    const auto begin = std::chrono::steady_clock::now();
    CrashEnumerator states(point, {.exhaustive_writes = 12, .torn_per_write = 0, .samples = 0});
    uint64_t count = 0;
    uint64_t sum = 0;
    while (auto state = states.next()) {
        sum += state->medium.hash();
        ++count;
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    EXPECT_EQ(count, 4096u);
    std::printf("%.0f thousand states/s (%llx)\n", static_cast<double>(count) / took.count() / 1e3,
                static_cast<unsigned long long>(sum));
}

}  // namespace
}  // namespace pf::runtime::sim
