// Goal: nothing is formatted over data without force. Method: one bit set where others keep their
// marks, on a disk that is blank otherwise; format must refuse it and change nothing.
#include <gtest/gtest.h>

#include "tray/tray_rig_test.hpp"

namespace pf::tray {
namespace {

constexpr uint64_t disk_bytes = uint64_t{256} << 20;

struct Mark {
    const char* what;
    uint64_t offset;
};

class BlankCheckTest : public testing::TestWithParam<Mark> {};

TEST_P(BlankCheckTest, RefusesAndChangesNothing) {
    TrayRig rig({.disk_bytes = disk_bytes, .log_bytes = uint64_t{1} << 20});
    const uint64_t offset = GetParam().offset;
    rig.disk().flip_bit(offset, 3);
    const Status refused = rig.format();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::already_exists);
    EXPECT_NE(refused.error().message.find("data at byte " + std::to_string(offset) + ";"),
              std::string::npos)
        << refused.error().message;
    EXPECT_EQ(rig.disk().counters().written_bytes, 0U);
    rig.disk().flip_bit(offset, 3);
    EXPECT_TRUE(rig.format()) << "blank again";
}

INSTANTIATE_TEST_SUITE_P(Marks, BlankCheckTest,
                         testing::Values(Mark{"partition_table", 510}, Mark{"lvm", 536},
                                         Mark{"ext4", 1080}, Mark{"mdraid_1_2", 4096},
                                         Mark{"btrfs", 65600}, Mark{"zfs", 131072 + 16},
                                         Mark{"head_end", (4 << 20) - 1},
                                         Mark{"zfs_end", disk_bytes - (256 << 10) + 8},
                                         Mark{"mdraid_0_90", disk_bytes - (64 << 10)},
                                         Mark{"gpt_copy", disk_bytes - 512},
                                         Mark{"data_further_in", disk_bytes / 64 * 33}),
                         [](const auto& mark) { return mark.param.what; });

}  // namespace
}  // namespace pf::tray
