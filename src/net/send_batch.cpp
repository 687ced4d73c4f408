#include "net/send_batch.hpp"

#include "net/channel.hpp"

namespace pf::net {

namespace {
constexpr size_t memory_bytes =
    SendBatch::max_messages * (wire::header_bytes + SendBatch::copied_crcs * sizeof(uint32_t));
constexpr size_t vectors_beside_data = 2;  // header, and a long CRC table
static_assert(max_data_vectors + vectors_beside_data <= runtime::StreamOp::max_iovecs);
}  // namespace

SendBatch::SendBatch()
    : memory_(std::make_unique_for_overwrite<std::byte[]>(memory_bytes)),
      vectors_(std::make_unique_for_overwrite<iovec[]>(runtime::StreamOp::max_iovecs)) {}

void SendBatch::clear() {
    used_ = bytes_ = 0;
    messages_ = vector_count_ = 0;
}

bool SendBatch::has_room(size_t data_vectors, size_t data_bytes) const {
    if (empty()) return true;
    return messages_ < max_messages && bytes_ + data_bytes <= max_bytes &&
           vector_count_ + vectors_beside_data + data_vectors <= runtime::StreamOp::max_iovecs;
}

// Memory behind what was taken last: its vector grows, if that one is still the last.
std::byte* SendBatch::take(size_t bytes) {
    std::byte* at = memory_.get() + used_;
    used_ += bytes;
    PF_ASSERT(used_ <= memory_bytes);
    add_data(at, bytes);
    return at;
}

std::span<std::byte, wire::header_bytes> SendBatch::add_header() {
    ++messages_;
    return std::span<std::byte, wire::header_bytes>(take(wire::header_bytes), wire::header_bytes);
}

void SendBatch::add_crcs(std::span<const uint32_t> crcs) {
    if (crcs.empty()) return;
    if (crcs.size() > copied_crcs) {
        add_data(crcs.data(), crcs.size_bytes());
        return;
    }
    std::memcpy(take(crcs.size_bytes()), crcs.data(), crcs.size_bytes());
}

void SendBatch::add_data(const void* data, size_t bytes) {
    if (bytes == 0) return;
    bytes_ += bytes;
    if (vector_count_ > 0) {
        iovec& last = vectors_[vector_count_ - 1];
        if (static_cast<const std::byte*>(last.iov_base) + last.iov_len == data) {
            last.iov_len += bytes;
            return;
        }
    }
    PF_ASSERT(vector_count_ < runtime::StreamOp::max_iovecs);
    vectors_[vector_count_++] = {const_cast<void*>(data), bytes};
}

}  // namespace pf::net
