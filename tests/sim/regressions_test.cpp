// What the suites of this folder found, each as the few events that show it.
#include <gtest/gtest.h>

#include "tray/tray_rig_test.hpp"
#include "tray_rig.hpp"

namespace pf::test {
namespace {

using runtime::sim::DiskFault;
using runtime::sim::FaultKind;

// crash_states --only=5828: a write that was committed after its log block was confirmed held what
// it replaced until the log moved again, for which nothing asked: a write that waited for just
// those blocks waited for ever.
TEST(Regressions, a_late_commit_frees_what_it_replaced) {
    tray::TrayRig rig;
    ASSERT_TRUE(rig.format());
    ASSERT_TRUE(rig.mount());
    ASSERT_TRUE(rig.create_shard(1, 512));
    ASSERT_TRUE(rig.write(1, 1, 0, 8, 100));
    rig.settle();
    ASSERT_TRUE(rig.run(rig.do_write(1, 1, 0, 8, 200, tray::WriteKind::data, {}, false)));
    rig.settle();
    rig.tray().commit(rig.uncommitted().front());
    EXPECT_EQ(rig.tray().usage().held_blocks, 0u);
    rig.check_space();
}

// disk_faults --only=500 and --only=2366: one read of another place at the end of the log passed
// for its end, and the mount gave up acked writes for good.
TEST(Regressions, a_misread_log_is_read_again) {
    for (uint64_t skip = 0; skip < 2; ++skip) {
        TrayRig rig;
        ASSERT_TRUE(rig.create());
        ASSERT_TRUE(rig.write({.block = 10, .tag = 1000}));
        rig.idle();
        DiskFault misread;
        misread.kind = FaultKind::misdirected_read;
        misread.operations = DiskFault::on_read;
        misread.offset = uint64_t{tray::log_start_address} * block_bytes;
        misread.length = 64u << 10;
        misread.skip = skip;
        misread.other_offset = uint64_t{1} << 20;
        rig.crash_to(rig.disk.contents());
        rig.disk.inject(misread);
        ASSERT_TRUE(rig.boot()) << skip;
        const Result<Tag> found = rig.read(10, {1000, hole_tag});
        ASSERT_TRUE(found.has_value()) << skip << ": " << found.error().text();
        EXPECT_EQ(*found, 1000u) << skip;
    }
}

}  // namespace
}  // namespace pf::test
