// Opening what a tray lives on: checks, creation, locks and cache detection.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/bytes.hpp"
#include "base/units.hpp"
#include "runtime/uring/uring_disk.hpp"

namespace pf::runtime {

namespace {

struct FileCloser {
    int fd;
    ~FileCloser() {
        if (fd >= 0) ::close(fd);
    }
    int release() { return std::exchange(fd, -1); }
};

std::unexpected<Error> fail_errno(std::string what, int error_number) {
    return fail(from_errno(error_number), fmt::format("{}: {}", what, std::strerror(error_number)));
}

// Where the block device is mounted, or an empty string.
std::string mount_point_of(dev_t device) {
    std::ifstream mounts("/proc/self/mounts");
    std::string line;
    while (std::getline(mounts, line)) {
        std::istringstream fields(line);
        std::string source;
        std::string target;
        fields >> source >> target;
        struct stat info{};
        if (!source.starts_with('/') || ::stat(source.c_str(), &info) != 0) continue;
        if (S_ISBLK(info.st_mode) && info.st_rdev == device) return target;
    }
    return {};
}

// What the kernel says about the device's queue; empty if it says nothing.
std::string queue_attribute(dev_t device, const char* name) {
    const std::string base = fmt::format("/sys/dev/block/{}:{}", major(device), minor(device));
    for (const char* at : {"/queue/", "/../queue/"}) {  // of a disk, of a partition
        std::ifstream file(base + at + name);
        std::string value;
        if (std::getline(file, value)) return value;
    }
    return {};
}

// What cannot be read counts as volatile.
bool device_cache_is_volatile(dev_t device) {
    return queue_attribute(device, "write_cache") != "write through";
}

// Without FUA the kernel flushes after each such write. A file in memory has no device to flush.
bool writes_through_in_one_trip(int fd, dev_t device) {
    struct statfs filesystem{};
    if (::fstatfs(fd, &filesystem) == 0 && filesystem.f_type == TMPFS_MAGIC) return true;
    return queue_attribute(device, "fua") == "1";
}

Status sync_directory_of(const std::string& path) {
    const auto parent = std::filesystem::absolute(path).parent_path().string();
    const FileCloser directory{::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (directory.fd < 0 || ::fsync(directory.fd) != 0) {
        return fail_errno(fmt::format("cannot make the entry of '{}' durable", path), errno);
    }
    return {};
}

Result<int> open_direct(const std::string& path, int flags) {
    const int fd = ::open(path.c_str(), flags | O_DIRECT | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
    const int error = errno;
    switch (error) {
        case EINVAL:
            return fail(Errc::unsupported,
                        fmt::format("'{}' is on a filesystem without direct I/O (O_DIRECT); use "
                                    "a block device or a file on ext4 or xfs",
                                    path));
        case EBUSY:
            return fail(Errc::busy, fmt::format("device '{}' is in use by another process, a "
                                                "filesystem or the kernel",
                                                path));
        case EACCES:
        case EPERM:
            return fail(Errc::io_error, fmt::format("no permission to open '{}'", path));
        default:
            return fail_errno(fmt::format("cannot open '{}'", path), error);
    }
}

// The filesystem must not run full under a tray that believes in its free blocks. Memory is not
// taken before it is used.
bool reserve(int fd, uint64_t bytes) {
    const auto size = static_cast<off_t>(bytes);
    struct statfs filesystem{};
    if (::fstatfs(fd, &filesystem) == 0 && filesystem.f_type == TMPFS_MAGIC)
        return ::ftruncate(fd, size) == 0;
    if (::fallocate(fd, 0, 0, size) == 0) return true;
    return errno == EOPNOTSUPP && ::ftruncate(fd, size) == 0;
}

Result<int> create_file(const std::string& path, uint64_t bytes) {
    auto created = open_direct(path, O_RDWR | O_CREAT | O_EXCL);
    if (!created) {
        // Some filesystems make the file before they refuse direct I/O on it.
        if (created.error().code == Errc::unsupported) ::unlink(path.c_str());
        return created;
    }
    FileCloser file{*created};
    if (!reserve(file.fd, bytes) || ::fsync(file.fd) != 0) {
        const int error = errno;
        ::unlink(path.c_str());
        return fail_errno(fmt::format("cannot create '{}' of {}", path, format_exact_size(bytes)),
                          error);
    }
    PF_TRY(sync_directory_of(path));
    return file.release();
}

Status check_device(int fd, const std::string& path, dev_t device, OpenedFile& opened) {
    uint64_t bytes = 0;
    int sector = 0;
    if (::ioctl(fd, BLKGETSIZE64, &bytes) != 0 || ::ioctl(fd, BLKSSZGET, &sector) != 0) {
        return fail_errno(fmt::format("cannot read the size of device '{}'", path), errno);
    }
    if (sector > static_cast<int>(block_bytes)) {
        return fail(Errc::unsupported,
                    fmt::format("device '{}' has {}-byte sectors; at most {} are supported", path,
                                sector, block_bytes));
    }
    opened.size_bytes = round_down(bytes, block_bytes);
    opened.volatile_cache = device_cache_is_volatile(device);
    opened.fua = writes_through_in_one_trip(fd, device);
    return {};
}

}  // namespace

std::string loop_device_of(const std::string& path, const std::string& blocks) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(blocks, error)) {
        const std::string name = entry.path().filename();
        if (!name.starts_with("loop")) continue;
        std::ifstream file(entry.path() / "loop" / "backing_file");
        std::string backing;
        std::error_code unknown;  // it is not set up, or its file was deleted
        if (std::getline(file, backing) && std::filesystem::equivalent(backing, path, unknown))
            return "/dev/" + name;
    }
    return {};
}

Result<OpenedFile> open_file(const std::string& path, const DiskOptions& options) {
    struct stat info{};
    const bool missing = ::stat(path.c_str(), &info) != 0 && errno == ENOENT;
    const bool device = !missing && S_ISBLK(info.st_mode);
    if (!missing && !device && !S_ISREG(info.st_mode)) {
        return fail(Errc::invalid_argument,
                    fmt::format("'{}' is neither a regular file nor a block device", path));
    }
    if (device && options.exclusive) {
        if (const std::string target = mount_point_of(info.st_rdev); !target.empty()) {
            return fail(Errc::busy, fmt::format("device '{}' is mounted at '{}'; unmount it first",
                                                path, target));
        }
    }
    if (!missing && !device && options.exclusive) {
        if (const std::string loop = loop_device_of(path); !loop.empty()) {
            return fail(Errc::busy, fmt::format("file '{}' is the disk behind '{}'; detach that "
                                                "first (losetup -d)",
                                                path, loop));
        }
    }
    const bool create = missing && options.create_bytes > 0 && !options.read_only;
    const int flags =
        (options.read_only ? O_RDONLY : O_RDWR) | (device && options.exclusive ? O_EXCL : 0);
    PF_TRY_ASSIGN(const int fd,
                  create ? create_file(path, options.create_bytes) : open_direct(path, flags));
    FileCloser file{fd};
    OpenedFile opened;
    opened.read_only = options.read_only;
    if (device) {
        PF_TRY(check_device(fd, path, info.st_rdev, opened));
        opened.can_discard = true;
    } else {
        // A lock of the open file, not of the process: it also stops a second open in this one.
        if (options.exclusive && ::flock(fd, LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK)
                return fail_errno(fmt::format("cannot lock '{}'", path), errno);
            return fail(Errc::busy,
                        fmt::format("file '{}' is in use by another running process", path));
        }
        if (::fstat(fd, &info) != 0)
            return fail_errno(fmt::format("cannot stat '{}'", path), errno);
        opened.size_bytes = round_down(static_cast<uint64_t>(info.st_size), block_bytes);
        opened.volatile_cache = true;  // T10
        opened.fua = writes_through_in_one_trip(fd, info.st_dev);
    }
    if (options.cache != DiskOptions::Cache::detect) {
        opened.volatile_cache = options.cache == DiskOptions::Cache::is_volatile;
    }
    opened.fd = file.release();
    return opened;
}

}  // namespace pf::runtime
