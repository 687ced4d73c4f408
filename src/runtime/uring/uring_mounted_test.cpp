// Goal: a device with a mounted filesystem is not opened. Method: the one that holds the root
// filesystem, which is found through sysfs and only read.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "runtime/uring/uring_disk.hpp"
#include "runtime/uring/uring_test.hpp"

namespace pf::runtime {
namespace {

// Empty if / is on no block device that this process may read: an overlay, btrfs, a container.
std::string device_of_root() {
    struct stat root{};
    if (::stat("/", &root) != 0) return {};
    std::ifstream uevent("/sys/dev/block/" + std::to_string(major(root.st_dev)) + ":" +
                         std::to_string(minor(root.st_dev)) + "/uevent");
    const std::string key = "DEVNAME=";
    for (std::string line; std::getline(uevent, line);) {
        if (!line.starts_with(key)) continue;
        std::string path = "/dev/" + line.substr(key.size());
        struct stat info{};
        const bool is_it = ::stat(path.c_str(), &info) == 0 && S_ISBLK(info.st_mode) &&
                           info.st_rdev == root.st_dev;
        if (is_it && ::access(path.c_str(), R_OK) == 0) return path;
    }
    return {};
}

TEST(UringDisk, RefusesAMountedDevice) {
    const std::string device = device_of_root();
    if (device.empty()) GTEST_SKIP() << "the root filesystem is on no device that can be read";
    TestReactor test;
    test.run([&](UringReactor& reactor) -> Task<void> {
        DiskOptions options;
        options.read_only = true;
        auto opened = co_await reactor.open_disk(device, options);
        CO_ASSERT(!opened);
        EXPECT_EQ(opened.error().code, Errc::busy) << opened.error().text();
    });
}

}  // namespace
}  // namespace pf::runtime
