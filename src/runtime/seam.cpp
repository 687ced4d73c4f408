// The awaiters of disk.hpp and network.hpp, and addresses: what is the same for every
// implementation.
#include <fmt/format.h>

#include <charconv>

#include "runtime/disk.hpp"
#include "runtime/network.hpp"
#include "runtime/task.hpp"

namespace pf::runtime {

DiskAwaiter::DiskAwaiter(Disk& disk, Kind op_kind, uint64_t op_offset, const iovec* vectors,
                         uint32_t count)
    : disk_(disk) {
    kind = op_kind;
    offset = op_offset;
    iov = vectors;
    iov_count = count;
    for (uint32_t i = 0; i < count; ++i) length += vectors[i].iov_len;
}

DiskAwaiter Disk::read(uint64_t offset, MutableBytes to) {
    return {*this, DiskOp::Kind::read, offset, to.size(), iovec{to.data(), to.size()}};
}

DiskAwaiter Disk::write(uint64_t offset, Bytes from) {
    return {*this, DiskOp::Kind::write, offset, from.size(),
            iovec{const_cast<std::byte*>(from.data()), from.size()}};
}

DiskAwaiter Disk::readv(uint64_t offset, const iovec* iov, uint32_t count) {
    return {*this, DiskOp::Kind::read, offset, iov, count};
}

DiskAwaiter Disk::writev(uint64_t offset, const iovec* iov, uint32_t count) {
    return {*this, DiskOp::Kind::write, offset, iov, count};
}

DiskAwaiter Disk::flush() {
    return {*this, DiskOp::Kind::flush, 0, 0};
}

DiskAwaiter Disk::discard(uint64_t offset, uint64_t length) {
    return {*this, DiskOp::Kind::discard, offset, length};
}

void DiskAwaiter::await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    if (iov == nullptr && single.iov_len > 0) {
        iov = &single;
        iov_count = 1;
    }
    complete = [](DiskOp& op) { schedule(static_cast<DiskAwaiter&>(op).waiter_); };
    disk_.submit(*this);
}

Status DiskAwaiter::await_resume() const {
    if (result == 0) return {};
    return fail(from_errno(-result));
}

ReceiveAwaiter Connection::receive(MutableBytes to, uint32_t low_water) {
    return ReceiveAwaiter(*this, to, low_water);
}
SendAwaiter Connection::send(Bytes from) {
    return SendAwaiter(*this, from);
}
SendAwaiter Connection::send(const iovec* iov, uint32_t count) {
    return SendAwaiter(*this, iov, count);
}

void ReceiveAwaiter::await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    iov = &single;
    iov_count = 1;
    complete = [](StreamOp& op) { schedule(static_cast<ReceiveAwaiter&>(op).waiter_); };
    connection_.submit_receive(*this);
}

Result<size_t> ReceiveAwaiter::await_resume() const {
    if (result >= 0) return static_cast<size_t>(result);
    return fail(from_errno(static_cast<int>(-result)));
}

void SendAwaiter::await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    if (iov == nullptr) {
        iov = &single;
        iov_count = 1;
    }
    complete = [](StreamOp& op) { schedule(static_cast<SendAwaiter&>(op).waiter_); };
    connection_.submit_send(*this);
}

Status SendAwaiter::await_resume() const {
    if (result >= 0) return {};
    return fail(from_errno(static_cast<int>(-result)));
}

std::string Address::text() const {
    if (host.starts_with('/')) return host;
    if (host.find(':') != std::string::npos) return fmt::format("[{}]:{}", host, port);
    return fmt::format("{}:{}", host, port);
}

Result<Address> Address::parse(std::string_view text) {
    if (text.starts_with('/')) return Address{std::string(text), 0};
    const auto refuse = [&] {
        return fail(Errc::invalid_argument,
                    fmt::format("address '{}' is not HOST:PORT with a port from 0 to 65535", text));
    };
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return refuse();
    std::string_view host = text.substr(0, colon);
    const std::string_view digits = text.substr(colon + 1);
    if (host.starts_with('[') && host.ends_with(']')) {
        host = host.substr(1, host.size() - 2);
    } else if (host.find(':') != std::string_view::npos) {
        return refuse();
    }
    uint16_t port = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (host.empty() || digits.empty() || parsed.ec != std::errc{} ||
        parsed.ptr != digits.data() + digits.size()) {
        return refuse();
    }
    return Address{std::string(host), port};
}

}  // namespace pf::runtime
