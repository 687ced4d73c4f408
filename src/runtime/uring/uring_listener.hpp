// A listening TCP or Unix socket, and connecting to one.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>

#include "runtime/network.hpp"
#include "runtime/uring/ring.hpp"

namespace pf::runtime {

// Tells the file of a socket from another at the same path. The number is not used again while the
// socket is open, as that keeps the inode.
struct SocketFile {
    dev_t device = 0;
    ino_t inode = 0;
    bool operator==(const SocketFile&) const = default;
};

class UringListener final : public Listener {
  public:
    [[nodiscard]] static Result<std::unique_ptr<Listener>> create(Ring& ring,
                                                                  const Address& address);
    UringListener(Ring& ring, int fd, Address local, std::optional<SocketFile> file)
        : ring_(ring), fd_(fd), local_(std::move(local)), file_(file) {}
    ~UringListener() override;

    [[nodiscard]] Task<Result<std::unique_ptr<Connection>>> accept() override;
    void shut_down() override;
    [[nodiscard]] const Address& local() const override { return local_; }

  private:
    void remove_socket_file() const;

    Ring& ring_;
    int fd_;
    Address local_;
    std::optional<SocketFile> file_;  // of a Unix socket
    bool shut_ = false;
};

[[nodiscard]] Task<Result<std::unique_ptr<Connection>>> connect_stream(Ring& ring, Address address,
                                                                       Nanos timeout);

}  // namespace pf::runtime
