#include "attach/nbd_stream.hpp"

#include <algorithm>
#include <cstring>

namespace pf::attach::nbd {

using runtime::Task;

Task<Status> InputStream::need(size_t bytes) {
    PF_ASSERT(bytes <= batch_.size());
    if (begin_ > 0) {
        std::memmove(batch_.data(), batch_.data() + begin_, buffered());
        end_ -= begin_;
        begin_ = 0;
    }
    while (buffered() < bytes) {
        const MutableBytes space = batch_.bytes().subspan(end_);
        const Result<size_t> received = co_await connection_.receive(space);
        if (!received) co_return fail(received.error().code);
        if (*received == 0) co_return fail(Errc::disconnected);
        end_ += *received;
    }
    co_return Status{};
}

Task<Status> InputStream::read(MutableBytes to) {
    to = to.subspan(copy_buffered(to));
    while (!to.empty()) {
        if (to.size() < direct_bytes) {
            const Status more = co_await need(to.size());
            if (!more) co_return more;
            to = to.subspan(copy_buffered(to));
            continue;
        }
        const Result<size_t> received = co_await connection_.receive(to);
        if (!received) co_return fail(received.error().code);
        if (*received == 0) co_return fail(Errc::disconnected);
        to = to.subspan(*received);
    }
    co_return Status{};
}

Task<Status> InputStream::skip(uint64_t bytes) {
    while (bytes > 0) {
        if (buffered() == 0) {
            const Status more = co_await need(1);
            if (!more) co_return more;
        }
        const size_t step = std::min<uint64_t>(bytes, buffered());
        consume(step);
        bytes -= step;
    }
    co_return Status{};
}

size_t InputStream::copy_buffered(MutableBytes to) {
    const size_t bytes = std::min(to.size(), buffered());
    if (bytes > 0) std::memcpy(to.data(), batch_.data() + begin_, bytes);
    begin_ += bytes;
    return bytes;
}

}  // namespace pf::attach::nbd
