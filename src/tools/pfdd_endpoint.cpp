#include "tools/pfdd_endpoint.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/units.hpp"
#include "tools/pfdd_options.hpp"

namespace pf::tools {

namespace {

std::unexpected<Error> failed(const std::string& what, const std::string& name) {
    const int error = errno;
    return fail(from_errno(error), fmt::format("{} '{}': {}", what, name, std::strerror(error)));
}

}  // namespace

Cluster::~Cluster() {
    if (context_ != nullptr) pfbd_context_destroy(context_);
}

Status Cluster::connect(const std::string& conductor, uint32_t depth) {
    pfbd_options options{};
    options.struct_bytes = sizeof(options);
    options.conductor = conductor.empty() ? nullptr : conductor.c_str();
    options.flags = PFBD_CALLER_THREAD;
    options.depth = depth;
    if (pfbd_context_create(&options, &context_) != 0)
        return fail(Errc::unavailable, pfbd_error_text());
    return {};
}

void Cluster::poll(int64_t timeout_us) {
    if (context_ != nullptr) pfbd_poll(context_, timeout_us);
}

Endpoint::~Endpoint() {
    if (volume_ != nullptr) pfbd_close(volume_);
    if (own_fd_) ::close(fd_);
}

Status Endpoint::open(const std::string& operand, Use use, Cluster& cluster) {
    name_ = operand;
    if (const auto volume = volume_name(operand)) {
        PF_TRY(check_volume_name(*volume));  // whose message does not repeat bytes it refuses
        const uint32_t flags = use == Use::input ? uint32_t{PFBD_READ_ONLY} : 0;
        if (pfbd_open(cluster.context(), volume->c_str(), flags, &volume_) != 0)
            return fail(Errc::unavailable,
                        fmt::format("cannot open volume '{}': {}", *volume, pfbd_error_text()));
        pfbd_info info{};
        if (pfbd_get_info(volume_, &info) != 0) return fail(Errc::internal, pfbd_error_text());
        size_ = info.size_bytes;
        seekable_ = true;
        return {};
    }
    if (operand == "-") {
        fd_ = use == Use::input ? STDIN_FILENO : STDOUT_FILENO;
        name_ = use == Use::input ? "standard input" : "standard output";
    } else {
        const int flags = use == Use::input ? O_RDONLY : O_WRONLY | O_CREAT;
        fd_ = ::open(operand.c_str(), flags | O_CLOEXEC, 0666);
        if (fd_ < 0) return failed("cannot open", operand);
        own_fd_ = true;
    }
    struct stat status{};
    if (::fstat(fd_, &status) != 0) return failed("cannot look at", name_);
    if (S_ISDIR(status.st_mode))
        return fail(Errc::invalid_argument, fmt::format("'{}' is a directory", name_));
    regular_ = S_ISREG(status.st_mode);
    // Standard streams go on where they stand, as dd does. How much is left from there is not
    // asked, as that would move them.
    seekable_ = own_fd_ && ::lseek(fd_, 0, SEEK_CUR) >= 0;
    // A file that says 0 may have content, as those of /proc do.
    if (regular_ && seekable_ && status.st_size > 0) size_ = static_cast<uint64_t>(status.st_size);
    if (S_ISBLK(status.st_mode) && seekable_) {
        const off_t end = ::lseek(fd_, 0, SEEK_END);
        if (end < 0) return failed("cannot find the size of", name_);
        size_ = static_cast<uint64_t>(end);
    }
    return {};
}

// False: to be stopped.
bool Endpoint::wait_for_input() const {
    constexpr int idle_ms = 1000;
    bool others = true;
    while (!stop_()) {
        pollfd stream{fd_, POLLIN, 0};
        const int ready = ::poll(&stream, 1, others ? 0 : idle_ms);
        if (ready > 0 || (ready < 0 && errno != EINTR)) return true;  // the read says what is wrong
        others = others_();
    }
    return false;
}

Result<size_t> Endpoint::read(MutableBytes to, uint64_t offset) {
    size_t done = 0;
    while (done < to.size()) {
        if (!seekable_ && !wait_for_input()) break;
        const ssize_t got = seekable_ ? ::pread(fd_, to.data() + done, to.size() - done,
                                                static_cast<off_t>(offset + done))
                                      : ::read(fd_, to.data() + done, to.size() - done);
        if (got < 0 && errno == EINTR) {
            if (stop_()) break;
            continue;
        }
        if (got < 0) return failed("cannot read", name_);
        if (got == 0) break;
        done += static_cast<size_t>(got);
    }
    return done;
}

Status Endpoint::write(Bytes from, uint64_t offset) {
    size_t done = 0;
    while (done < from.size()) {
        const ssize_t put = seekable_ ? ::pwrite(fd_, from.data() + done, from.size() - done,
                                                 static_cast<off_t>(offset + done))
                                      : ::write(fd_, from.data() + done, from.size() - done);
        if (put < 0 && errno == EINTR) {
            if (stop_())
                return fail(Errc::cancelled,
                            fmt::format("interrupted while '{}' took nothing more", name_));
            continue;
        }
        if (put < 0) return failed("cannot write", name_);
        done += static_cast<size_t>(put);
    }
    return {};
}

Result<FileRun> Endpoint::file_run(uint64_t offset) {
    if (!regular_ || !seekable_ || !size_) return FileRun{UINT64_MAX, false};
    const off_t data = ::lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return FileRun{UINT64_MAX, true};  // a hole up to the end
    if (data < 0) return FileRun{UINT64_MAX, false};  // a filesystem that cannot tell
    const auto begin = static_cast<uint64_t>(data);
    if (begin > offset) return FileRun{begin - offset, true};
    const off_t hole = ::lseek(fd_, data, SEEK_HOLE);
    if (hole < 0) return failed("cannot look for holes in", name_);
    return FileRun{static_cast<uint64_t>(hole) - offset, false};
}

bool Endpoint::same_as(const Endpoint& other) const {
    if (is_volume() || other.is_volume()) return name_ == other.name_;
    struct stat mine{};
    struct stat theirs{};
    if (::fstat(fd_, &mine) != 0 || ::fstat(other.fd_, &theirs) != 0) return false;
    return regular_ && mine.st_dev == theirs.st_dev && mine.st_ino == theirs.st_ino;
}

Status Endpoint::truncate(uint64_t size) {
    if (!truncatable()) return {};
    if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) return failed("cannot truncate", name_);
    return {};
}

Status Endpoint::sync() {
    if (fd_ < 0) return {};
    // Pipes and terminals have nothing to sync.
    if (::fsync(fd_) != 0 && errno != EINVAL && errno != EROFS) return failed("cannot sync", name_);
    return {};
}

Status Endpoint::close() {
    if (!own_fd_) return {};
    own_fd_ = false;  // even after an error it is closed
    const int fd = std::exchange(fd_, -1);
    if (::close(fd) == 0) return {};
    const int error = errno;
    return fail(from_errno(error), fmt::format("cannot close '{}': {}; what was written to it may "
                                               "be lost: mend the cause and copy again",
                                               name_, std::strerror(error)));
}

Status Endpoint::skip(uint64_t bytes) {
    std::vector<std::byte> memory(std::min<uint64_t>(bytes, 1u << 20));
    while (bytes > 0) {
        const MutableBytes to =
            MutableBytes(memory).first(std::min<uint64_t>(bytes, memory.size()));
        PF_TRY_ASSIGN(const size_t got, read(to, 0));
        if (got == 0) return {};
        bytes -= got;
    }
    return {};
}

}  // namespace pf::tools
