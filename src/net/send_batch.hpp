// Messages that leave in one send: headers and short CRC tables are written one behind the other
// into fixed memory, data and long tables are named where they are.
//
// Invariants: all memory is taken once; the batch and what it names stay as they are until the send
// completed. A batch is bounded in messages, vectors and bytes, so that a send that makes progress
// also completes.
#pragma once

#include <memory>
#include <span>

#include "runtime/network.hpp"
#include "wire/message.hpp"

namespace pf::net {

class SendBatch {
  public:
    static constexpr uint32_t max_messages = 256;
    static constexpr size_t max_bytes = 2u << 20;
    // A CRC table up to this long is copied behind its header, which saves a vector.
    static constexpr uint32_t copied_crcs = 10;

    SendBatch();

    void clear();
    [[nodiscard]] bool empty() const { return messages_ == 0; }
    // Whether one more message with so many vectors of data fits. An empty batch takes any.
    [[nodiscard]] bool has_room(size_t data_vectors, size_t data_bytes) const;

    // Each message: header, then its CRCs, then its data.
    [[nodiscard]] std::span<std::byte, wire::header_bytes> add_header();
    void add_crcs(std::span<const uint32_t> crcs);
    void add_data(const void* data, size_t bytes);

    [[nodiscard]] const iovec* vectors() const { return vectors_.get(); }
    [[nodiscard]] uint32_t vector_count() const { return vector_count_; }

  private:
    [[nodiscard]] std::byte* take(size_t bytes);

    std::unique_ptr<std::byte[]> memory_;
    std::unique_ptr<iovec[]> vectors_;
    size_t used_ = 0;
    size_t bytes_ = 0;
    uint32_t messages_ = 0;
    uint32_t vector_count_ = 0;
};

}  // namespace pf::net
