#include "tools/data_dir.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/assert.hpp"

namespace pf::tools {

namespace {

constexpr const char* identity_file = "identity";

std::unexpected<Error> fail_errno(std::string_view what, const std::string& path) {
    return fail(Errc::io_error, fmt::format("cannot {} '{}': {}", what, path, strerror(errno)));
}

Status write_synced(const std::string& path, const std::string& text) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return fail_errno("write", path);
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    const bool good = wrote == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
    ::close(fd);
    if (!good) return fail_errno("write", path);
    return {};
}

Status sync_directory(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fail_errno("open", path);
    const bool good = ::fsync(fd) == 0;
    ::close(fd);
    if (!good) return fail_errno("sync", path);
    return {};
}

}  // namespace

Result<DataDir> DataDir::open(const std::string& path) {
    const auto refuse = [&path](const std::string& why) {
        return fail(Errc::io_error,
                    fmt::format("cannot use '{}' as the data folder: {}; give a folder that can be "
                                "made or written",
                                path, why));
    };
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) return refuse(error.message());
    const std::string absolute = std::filesystem::weakly_canonical(path, error).string();
    if (error) return refuse(error.message());
    const std::string lock = absolute + "/lock";
    const int fd = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return refuse(strerror(errno));
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
        ::close(fd);
        return fail(Errc::busy, fmt::format("another process is running on '{}'; stop it, or use "
                                            "another folder",
                                            absolute));
    }
    // Its holder may have removed it meanwhile, after a start that failed: then it guards nothing.
    struct stat locked{};
    struct stat there{};
    if (::fstat(fd, &locked) != 0 || ::stat(lock.c_str(), &there) != 0 ||
        locked.st_ino != there.st_ino) {
        ::close(fd);
        return fail(Errc::busy,
                    fmt::format("another process just removed '{}'; try again", absolute));
    }
    return DataDir(absolute, fd);
}

DataDir::DataDir(DataDir&& other) noexcept
    : path_(std::move(other.path_)), lock_fd_(std::exchange(other.lock_fd_, -1)) {}

DataDir::~DataDir() {
    if (lock_fd_ >= 0) ::close(lock_fd_);
}

Result<std::vector<std::string>> DataDir::read_lines(const std::string& name) const {
    std::vector<std::string> lines;
    std::error_code error;
    if (!std::filesystem::exists(file(name), error)) return lines;
    std::ifstream in(file(name));
    for (std::string line; std::getline(in, line);) {
        if (!line.empty()) lines.push_back(line);
    }
    if (in.bad() || !in.eof()) return fail_errno("read", file(name));
    return lines;
}

Status DataDir::write_lines(const std::string& name, const std::vector<std::string>& lines) const {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    const std::string fresh = file(name) + ".new";
    PF_TRY(write_synced(fresh, text));
    if (::rename(fresh.c_str(), file(name).c_str()) != 0) return fail_errno("replace", file(name));
    return sync_directory(path_);
}

Result<StoreIdentity> load_identity(const DataDir& dir) {
    PF_TRY_ASSIGN(StoreIdentity identity, read_identity(dir));
    if (!identity.id.is_zero()) return identity;
    identity.id = Uuid::from_random(random_seed(), random_seed());
    PF_TRY(save_identity(dir, identity));
    return identity;
}

Result<StoreIdentity> read_identity(const DataDir& dir) {
    PF_TRY_ASSIGN(const std::vector<std::string> lines, dir.read_lines(identity_file));
    StoreIdentity identity;
    for (const std::string& line : lines) {
        const size_t space = line.find(' ');
        const std::string key = line.substr(0, space);
        const std::string value = space == std::string::npos ? "" : line.substr(space + 1);
        const Result<Uuid> uuid = Uuid::parse(value);
        if (!uuid || (key != "store" && key != "cluster")) {
            return fail(Errc::corrupt, fmt::format("'{}' has the line '{}'; expected 'store UUID' "
                                                   "and 'cluster UUID'",
                                                   dir.file(identity_file), line));
        }
        (key == "store" ? identity.id : identity.cluster) = *uuid;
    }
    return identity;
}

Status save_identity(const DataDir& dir, const StoreIdentity& identity) {
    std::vector<std::string> lines = {"store " + identity.id.text()};
    if (!identity.cluster.is_zero()) lines.push_back("cluster " + identity.cluster.text());
    return dir.write_lines(identity_file, lines);
}

uint64_t random_seed() {
    uint64_t seed = 0;
    const ssize_t got = ::getrandom(&seed, sizeof(seed), 0);
    PF_ASSERT(got == sizeof(seed));
    return seed;
}

}  // namespace pf::tools
