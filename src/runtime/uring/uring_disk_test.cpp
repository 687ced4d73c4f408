// Files and loopback devices behind the Disk seam.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "runtime/uring/uring_disk.hpp"
#include "runtime/uring/uring_test.hpp"

namespace pf::runtime {
namespace {

constexpr uint64_t disk_bytes = uint64_t{16} << 20;

DiskOptions creating() {
    DiskOptions options;
    options.create_bytes = disk_bytes;
    return options;
}

void fill(MutableBytes bytes, unsigned seed) {
    for (size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<std::byte>((i * 31 + i / 4096 + seed) & 0xff);
    }
}

bool same(Bytes a, Bytes b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

Task<void> until(const int& done, int wanted) {
    while (done < wanted) co_await sleep_for(milliseconds);
}

using DiskPointer = std::unique_ptr<Disk>;

// Found by hand: a file behind a loop device with a mounted filesystem was formatted with --force.
TEST(UringDisk, regression_a_file_behind_a_loop_device_is_found) {
    namespace fs = std::filesystem;
    const TestPath path;
    const TestPath other;
    const TestPath blocks;
    for (const auto& file : {path.text(), other.text()}) std::ofstream{file} << "x";
    EXPECT_EQ(loop_device_of(path.text(), blocks.text()), "");
    fs::create_directories(blocks.text() + "/loop3/loop");
    fs::create_directories(blocks.text() + "/loop4");
    fs::create_directories(blocks.text() + "/vda");
    std::ofstream{blocks.text() + "/loop3/loop/backing_file"} << path.text() << "\n";
    EXPECT_EQ(loop_device_of(path.text(), blocks.text()), "/dev/loop3");
    EXPECT_EQ(loop_device_of(other.text(), blocks.text()), "");
    fs::remove_all(blocks.text());
}

TEST(UringDisk, ReadsBackWhatItWrote) {
    TestReactor test;
    TestPath path;
    test.run([&](UringReactor& reactor) -> Task<void> {
        auto opened = co_await reactor.open_disk(path.text(), creating());
        CO_ASSERT(opened);
        Disk& disk = **opened;
        EXPECT_EQ(disk.size_bytes(), disk_bytes);
        EXPECT_TRUE(disk.volatile_cache());
        EXPECT_EQ(disk.name(), path.text());
        for (const size_t bytes : {4096uz, 65536uz, 1uz << 20, 2uz << 20}) {
            Buffer out = reactor.buffers().try_allocate(bytes);
            Buffer in = reactor.buffers().try_allocate(bytes);
            fill(out.bytes(), static_cast<unsigned>(bytes));
            auto written = co_await disk.write(8192, out.bytes());
            EXPECT_TRUE(written);
            auto read = co_await disk.read(8192, in.bytes());
            EXPECT_TRUE(read);
            EXPECT_TRUE(same(in.bytes(), out.bytes()));
        }
        auto flushed = co_await disk.flush();
        EXPECT_TRUE(flushed);
    });
}

TEST(UringDisk, VectorsAndNoDiscardOfAFile) {
    TestReactor test;
    TestPath path;
    test.run([&](UringReactor& reactor) -> Task<void> {
        auto opened = co_await reactor.open_disk(path.text(), creating());
        CO_ASSERT(opened);
        Disk& disk = **opened;
        Buffer out = reactor.buffers().try_allocate(64 * 4096);
        Buffer in = reactor.buffers().try_allocate(64 * 4096);
        fill(out.bytes(), 1);
        std::vector<iovec> backwards;
        for (size_t i = 64; i-- > 0;) backwards.push_back({out.data() + i * 4096, 4096});
        auto written = co_await disk.writev(0, backwards.data(), 64);
        EXPECT_TRUE(written);
        auto read = co_await disk.read(0, in.bytes());
        EXPECT_TRUE(read);
        for (size_t i = 0; i < 64; ++i) {
            EXPECT_EQ(0, std::memcmp(in.data() + i * 4096, out.data() + (63 - i) * 4096, 4096));
        }
        std::vector<iovec> halves{{in.data() + size_t{32} * 4096, 32 * 4096},
                                  {in.data(), 32 * 4096}};
        auto read_halves = co_await disk.readv(0, halves.data(), 2);
        EXPECT_TRUE(read_halves);
        EXPECT_EQ(0, std::memcmp(in.data(), out.data() + size_t{31} * 4096, 4096));

        // A hole would give up what was reserved for the file.
        EXPECT_FALSE(disk.can_discard());
        auto discarded = co_await disk.discard(0, 8 * 4096);
        EXPECT_FALSE(discarded);
        EXPECT_EQ(discarded.error().code, Errc::unsupported);
        std::ranges::fill(in.bytes(), std::byte{0});
        auto read_again = co_await disk.read(0, in.bytes().first(4096));
        EXPECT_TRUE(read_again);
        EXPECT_EQ(0, std::memcmp(in.data(), out.data() + size_t{63} * 4096, 4096));
    });
}

TEST(UringDisk, MoreOperationsThanTheRingHoldsAllComplete) {
    UringOptions options = small_options();
    options.ring_entries = 8;
    TestReactor test(options);
    TestPath path;
    constexpr int writers = 500;
    test.run([&](UringReactor& reactor) -> Task<void> {
        auto opened = co_await reactor.open_disk(path.text(), creating());
        CO_ASSERT(opened);
        int done = 0;
        const auto writer = [](Disk& disk, uint64_t at, int& count) -> Task<void> {
            Buffer buffer = Reactor::current().buffers().try_allocate(4096);
            fill(buffer.bytes(), static_cast<unsigned>(at / 4096));
            auto written = co_await disk.write(at, buffer.bytes());
            EXPECT_TRUE(written);
            ++count;
        };
        for (int i = 0; i < writers; ++i) {
            reactor.spawn(writer(**opened, static_cast<uint64_t>(i) * 4096, done));
        }
        co_await until(done, writers);
        Buffer in = reactor.buffers().try_allocate(4096);
        Buffer expected = reactor.buffers().try_allocate(4096);
        for (unsigned i = 0; i < writers; ++i) {
            fill(expected.bytes(), i);
            auto read = co_await (*opened)->read(uint64_t{i} * 4096, in.bytes());
            EXPECT_TRUE(read);
            EXPECT_TRUE(same(in.bytes(), expected.bytes()));
        }
    });
}

TEST(UringDisk, ShrunkenFileIsAnIoErrorAndBeyondTheEndIsRefused) {
    TestReactor test;
    TestPath path;
    test.run([&](UringReactor& reactor) -> Task<void> {
        auto opened = co_await reactor.open_disk(path.text(), creating());
        CO_ASSERT(opened);
        Disk& disk = **opened;
        Buffer buffer = reactor.buffers().try_allocate(64 * 1024);
        auto beyond = co_await disk.write(disk_bytes - 4096, buffer.bytes());
        EXPECT_EQ(beyond.error().code, Errc::invalid_argument);
        auto overflow = co_await disk.read(~uint64_t{4095}, buffer.bytes());
        EXPECT_EQ(overflow.error().code, Errc::invalid_argument);
        auto discard = co_await disk.discard(disk_bytes, 4096);
        EXPECT_EQ(discard.error().code, Errc::invalid_argument);
        // The read gets a part first, then nothing: the rest is asked for, and missed.
        EXPECT_EQ(0, ::truncate(path.text().c_str(), disk_bytes - 32 * 1024));
        auto shrunken = co_await disk.read(disk_bytes - 64 * 1024, buffer.bytes());
        EXPECT_EQ(shrunken.error().code, Errc::io_error);
    });
}

TEST(UringDisk, ReadOnlyRefusesWrites) {
    TestReactor test;
    TestPath path;
    test.run([&](UringReactor& reactor) -> Task<void> {
        {
            auto made = co_await reactor.open_disk(path.text(), creating());
        }
        DiskOptions options;
        options.read_only = true;
        options.cache = DiskOptions::Cache::is_stable;
        auto opened = co_await reactor.open_disk(path.text(), options);
        CO_ASSERT(opened);
        EXPECT_FALSE((*opened)->volatile_cache());
        Buffer buffer = reactor.buffers().try_allocate(4096);
        auto written = co_await (*opened)->write(0, buffer.bytes());
        EXPECT_EQ(written.error().code, Errc::read_only);
        auto read = co_await (*opened)->read(0, buffer.bytes());
        EXPECT_TRUE(read);
    });
}

TEST(UringDisk, RefusesWhatItMustNotOpen) {
    TestReactor test;
    TestPath path;
    test.run([&](UringReactor& reactor) -> Task<void> {
        auto missing = co_await reactor.open_disk(path.text(), DiskOptions{});
        EXPECT_EQ(missing.error().code, Errc::not_found);
        auto first = co_await reactor.open_disk(path.text(), creating());
        EXPECT_TRUE(first);
        auto second = co_await reactor.open_disk(path.text(), creating());
        CO_ASSERT(!second);
        EXPECT_EQ(second.error().code, Errc::busy);
        EXPECT_NE(second.error().message.find(path.text()), std::string::npos);
        first->reset();
        auto third = co_await reactor.open_disk(path.text(), creating());
        EXPECT_TRUE(third);
        auto directory = co_await reactor.open_disk("/", DiskOptions{});
        EXPECT_EQ(directory.error().code, Errc::invalid_argument);
        auto no_direct = co_await reactor.open_disk("/proc/self/status", DiskOptions{});
        EXPECT_EQ(no_direct.error().code, Errc::unsupported);
    });
}

TEST(UringDisk, EndsWhileOperationsAreInFlight) {
    TestPath path;
    TestReactor test;
    const auto writer = [](Disk& disk, uint64_t at) -> Task<void> {
        Buffer buffer = Reactor::current().buffers().try_allocate(4096);
        while (true) {
            auto written = co_await disk.write(at, buffer.bytes());
            EXPECT_TRUE(written);
        }
    };
    const auto owner = [&](UringReactor& reactor) -> Task<void> {
        auto opened = co_await reactor.open_disk(path.text(), creating());
        CO_ASSERT(opened);
        for (uint64_t i = 0; i < 300; ++i) reactor.spawn(writer(**opened, i * 4096));
        co_await sleep_for(20 * milliseconds);
        reactor.stop();
        co_await sleep_for(3600 * seconds);
    };
    test->spawn(owner(*test));
    test->run();
}

}  // namespace
}  // namespace pf::runtime
