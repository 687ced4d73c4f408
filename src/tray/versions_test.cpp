// Goal: a tray of another version of the format, or with a feature that this program does not
// know, is refused by name and stays as it is, byte for byte: at a mount, by an inspection, and by
// a format without force. Method: a good tray with one number changed and its CRC made again.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <iterator>

#include "tray/craft_test.hpp"
#include "tray/inspect.hpp"
#include "tray/tray_rig_test.hpp"

namespace pf::tray {
namespace {

using runtime::Task;
using runtime::sim::Medium;

enum class Call : uint8_t { superblocks, log, map, verify };
constexpr Call all_calls[] = {Call::superblocks, Call::log, Call::map, Call::verify};

Task<Status> inspect(Call call) {
    runtime::DiskOptions options;
    options.read_only = true;
    PF_CO_TRY_ASSIGN(auto disk, co_await runtime::Reactor::current().open_disk("disk", options));
    Inspector inspector(std::move(disk));
    const auto ignore = [](const LogBlock&, const std::vector<Record>&) {};
    switch (call) {
        case Call::superblocks:
            PF_CO_TRY(co_await inspector.superblocks());
            break;
        case Call::log:
            PF_CO_TRY(co_await inspector.log(ignore));
            break;
        case Call::map:
            PF_CO_TRY(co_await inspector.map());
            break;
        case Call::verify:
            PF_CO_TRY(co_await inspector.verify());
            break;
    }
    co_return Status{};
}

// What the encoders write is what the page of the format says.
TEST(Format, ThePageTellsTheMagicOfEachStructure) {
    std::ifstream file(PF_TRAY_FORMAT_FILE);
    const std::string page{std::istreambuf_iterator<char>(file), {}};
    ASSERT_FALSE(page.empty()) << PF_TRAY_FORMAT_FILE;
    std::vector<std::byte> block(block_bytes);
    const auto expect = [&](const std::string& structure) {
        const Bytes bytes = block;
        const std::string letters(reinterpret_cast<const char*>(bytes.data()), sizeof(uint32_t));
        const std::string row =
            fmt::format("| {} | {:#010x} | `{}` |", structure, load<uint32_t>(bytes), letters);
        EXPECT_NE(page.find(row), std::string::npos) << row;
        EXPECT_EQ(load<uint16_t>(bytes, sizeof(uint32_t)), format_version);
    };
    encode_superblock({}, block);
    expect("superblock");
    encode_root({}, 1, block);
    expect("root");
    seal_log_block(LogHeader(), 1, 0, block);
    expect("log block");
    seal_meta(MetaKind::state, 1, 0, {unmapped_address, 0}, block);
    expect("metadata block");
    EXPECT_NE(page.find(fmt::format("the version of all structs is {}\n", format_version)),
              std::string::npos);
}

struct TrayVersions : testing::Test {
    TrayVersions() {
        EXPECT_TRUE(rig.format());
        EXPECT_TRUE(rig.mount());
        EXPECT_TRUE(rig.create_shard(1, 4096));
        EXPECT_TRUE(rig.write(1, 1, 0, 8, 10));
        rig.stop();
    }
    // Whatever is tried without force is refused with `words`, and writes nothing.
    void expect_refused(const Medium& medium, const std::string& words, const std::string& what) {
        rig.disk().replace(medium);
        const uint64_t before = rig.disk().contents().hash();
        const auto expect = [&](const Status& done, Errc code, const std::string& message) {
            ASSERT_FALSE(done) << what;
            EXPECT_EQ(done.error().code, code) << what << ": " << done.error().text();
            EXPECT_NE(done.error().message.find(message), std::string::npos)
                << what << ": " << done.error().message;
            EXPECT_EQ(rig.disk().contents().hash(), before) << what << " wrote to the tray";
        };
        expect(rig.mount(), Errc::unsupported_version, words);
        for (const Call call : all_calls)
            expect(rig.run(inspect(call)), Errc::unsupported_version, words);
        expect(rig.format(), Errc::already_exists, "--force");
        rig.settle();
        EXPECT_EQ(rig.disk().contents().hash(), before) << what;
    }
    [[nodiscard]] Medium good() { return rig.disk().contents(); }

    TrayRig rig{RigOptions{}};
};

// In one copy as in both: a copy with a good CRC is not damaged, it is from another program, which
// may be in the middle of an upgrade. It must not be written over.
TEST_F(TrayVersions, AnotherVersionIsRefusedAndNothingIsWritten) {
    const Medium original = good();
    for (const uint16_t version : std::array<uint16_t, 4>{1, 3, 0, 0xffff}) {
        for (const int copies : {1, 2, 3}) {
            Crafter crafter(original);
            const auto change = [&](SuperblockFormat& format) { format.version = version; };
            if (copies & 1) crafter.edit<SuperblockFormat>(superblock_a_address, change);
            if (copies & 2)
                crafter.edit<SuperblockFormat>(crafter.superblock().second_copy(), change);
            expect_refused(
                crafter.medium(),
                "version " + std::to_string(version) + " is not supported; this program",
                "version " + std::to_string(version) + " in copies " + std::to_string(copies));
        }
    }
    rig.disk().replace(original);
    EXPECT_TRUE(rig.mount());
}

TEST_F(TrayVersions, AnUnknownFeatureIsRefusedAndNothingIsWritten) {
    const Medium original = good();
    for (const uint32_t bits : {uint32_t{1}, uint32_t{1} << 31}) {
        for (const int copies : {1, 2, 3}) {
            Crafter crafter(original);
            const auto change = [&](SuperblockFormat& format) {
                format.incompatible_features = bits;
            };
            if (copies & 1) crafter.edit<SuperblockFormat>(superblock_a_address, change);
            if (copies & 2)
                crafter.edit<SuperblockFormat>(crafter.superblock().second_copy(), change);
            expect_refused(crafter.medium(), bits == 1 ? "feature bits 0x1" : "feature bits 0x8000",
                           "a feature in copies " + std::to_string(copies));
        }
    }
}

// One copy of another version and the other one damaged: nothing is repaired from anything.
TEST_F(TrayVersions, AnotherVersionBesideADamagedCopyIsRefused) {
    const Medium original = good();
    for (const bool first : {true, false}) {
        Crafter crafter(original);
        const Address second = crafter.superblock().second_copy();
        crafter.edit<SuperblockFormat>(first ? superblock_a_address : second,
                                       [](SuperblockFormat& format) { format.version = 3; });
        Medium medium = crafter.medium();
        medium.flip_bit(uint64_t{first ? second : superblock_a_address} * block_bytes + 100, 1);
        expect_refused(medium, "version 3", "beside a damaged copy");
    }
}

// An older root that is still there must not be taken instead: a mount would write over the newer.
TEST_F(TrayVersions, ARootOfAnotherVersionIsRefusedAndNothingIsWritten) {
    const Medium original = good();
    for (const int variant : {0, 1, 2, 3}) {
        const bool flags = (variant & 1) != 0;
        const bool superblock_to_repair = (variant & 2) != 0;
        Crafter crafter(original);
        crafter.edit<RootFormat>(crafter.newest_root(), [&](RootFormat& root) {
            if (flags)
                root.flags = 2;
            else
                root.version = 3;
        });
        rig.disk().replace(crafter.medium());
        if (superblock_to_repair)
            rig.disk().flip_bit(uint64_t{crafter.superblock().second_copy()} * block_bytes + 40, 1);
        const uint64_t before = rig.disk().contents().hash();
        const Status mounted = rig.mount();
        ASSERT_FALSE(mounted);
        EXPECT_EQ(mounted.error().code, Errc::unsupported_version) << mounted.error().text();
        EXPECT_EQ(rig.disk().contents().hash(), before);
    }
}

}  // namespace
}  // namespace pf::tray
