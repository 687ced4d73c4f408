// A listening TCP or Unix socket, and connecting to one.
#pragma once

#include <memory>

#include "runtime/network.hpp"
#include "runtime/uring/ring.hpp"

namespace pf::runtime {

class UringListener final : public Listener {
  public:
    [[nodiscard]] static Result<std::unique_ptr<Listener>> create(Ring& ring,
                                                                  const Address& address);
    UringListener(Ring& ring, int fd, Address local)
        : ring_(ring), fd_(fd), local_(std::move(local)) {}
    ~UringListener() override;

    [[nodiscard]] Task<Result<std::unique_ptr<Connection>>> accept() override;
    void shut_down() override;
    [[nodiscard]] const Address& local() const override { return local_; }

  private:
    void remove_socket_file() const;

    Ring& ring_;
    int fd_;
    Address local_;
    bool shut_ = false;
};

[[nodiscard]] Task<Result<std::unique_ptr<Connection>>> connect_stream(Ring& ring, Address address,
                                                                       Nanos timeout);

}  // namespace pf::runtime
