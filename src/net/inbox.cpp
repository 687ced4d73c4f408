#include "net/inbox.hpp"

#include <fmt/format.h>

#include "net/channel.hpp"

namespace pf::net {

using runtime::Task;

namespace {

// Walks through scattered memory.
class Cursor {
  public:
    explicit Cursor(std::span<const iovec> into) : into_(into) {}

    // The next piece of memory, at most `limit` bytes of it.
    MutableBytes next(size_t limit) {
        while (into_[index_].iov_len == used_) {
            ++index_;
            used_ = 0;
            PF_ASSERT(index_ < into_.size());
        }
        const size_t bytes = std::min(limit, into_[index_].iov_len - used_);
        auto* data = static_cast<std::byte*>(into_[index_].iov_base) + used_;
        used_ += bytes;
        return {data, bytes};
    }

  private:
    std::span<const iovec> into_;
    size_t index_ = 0;
    size_t used_ = 0;
};

}  // namespace

void Inbox::open() {
    memory_ = std::make_unique_for_overwrite<std::byte[]>(capacity_bytes);
}

void Inbox::start_deadline() {
    if (!deadline_.armed()) reactor_.timers().arm(deadline_, reactor_.now() + timeout_);
}

Status Inbox::check(const Result<size_t>& received) const {
    if (deadline_.expired())
        return fail(Errc::timed_out, fmt::format("the peer did not complete a message within {} s",
                                                 timeout_ / runtime::seconds));
    if (closed_) return fail(Errc::disconnected);
    if (!received) return std::unexpected(received.error());
    if (*received == 0) return fail(Errc::disconnected);
    return {};
}

Task<Status> Inbox::fill(size_t need, bool inside_message) {
    PF_ASSERT(need <= capacity_bytes);
    // What is left is a part of one message, small against the batch: moving it to the front keeps
    // the rest of the memory free for the next batch.
    if (begin_ > 0) {
        const size_t left = buffered();
        std::memmove(memory_.get(), at(), left);
        begin_ = 0;
        end_ = left;
    }
    while (buffered() < need) {
        if (inside_message || buffered() > 0) start_deadline();
        const Result<size_t> received =
            co_await connection_.receive({memory_.get() + end_, capacity_bytes - end_});
        PF_CO_TRY(check(received));
        end_ += *received;
    }
    deadline_.disarm();
    co_return Status{};
}

Task<Status> Inbox::receive_data(std::span<const iovec> into, uint32_t length,
                                 PieceChecker& checker) {
    if (length > copy_limit_bytes) co_return co_await receive_direct(into, length, checker);
    if (buffered() < length) {
        const Status filled = co_await fill(length, true);
        PF_CO_TRY(filled);
    }
    take_data(into, length, checker);
    co_return Status{};
}

void Inbox::take_data(std::span<const iovec> into, uint32_t length, PieceChecker& checker) {
    Cursor cursor(into);
    for (size_t left = length; left > 0;) {
        const MutableBytes to = cursor.next(left);
        checker.copy(to.data(), {at(), to.size()});
        consume(to.size());
        left -= to.size();
    }
}

Task<Status> Inbox::receive_direct(std::span<const iovec> into, size_t length,
                                   PieceChecker& checker) {
    Cursor cursor(into);
    size_t left = length;
    while (left > 0 && buffered() > 0) {
        const MutableBytes to = cursor.next(std::min(left, buffered()));
        checker.copy(to.data(), {at(), to.size()});
        consume(to.size());
        left -= to.size();
    }
    while (left > 0) {
        MutableBytes to = cursor.next(left);
        left -= to.size();
        while (!to.empty()) {
            start_deadline();
            const auto low_water = static_cast<uint32_t>(std::min(to.size(), wake_bytes));
            const Result<size_t> received = co_await connection_.receive(to, low_water);
            PF_CO_TRY(check(received));
            checker.add(to.first(*received));
            to = to.subspan(*received);
        }
    }
    deadline_.disarm();
    co_return Status{};
}

Task<Status> Inbox::skip(uint32_t length) {
    for (size_t left = length; left > 0;) {
        if (buffered() == 0) {
            const Status filled = co_await fill(1, true);
            PF_CO_TRY(filled);
        }
        const size_t step = std::min(left, buffered());
        consume(step);
        left -= step;
    }
    co_return Status{};
}

}  // namespace pf::net
