// What a client sends, as a stream that is received in large batches: headers are looked at where
// they lie, small payloads are copied out once, large ones are received straight into their place.
//
// Thread rule: one reactor, one reader.
#pragma once

#include "base/error.hpp"
#include "runtime/buffer_pool.hpp"
#include "runtime/network.hpp"
#include "runtime/task.hpp"

namespace pf::attach::nbd {

class InputStream {
  public:
    static constexpr size_t batch_bytes = 128u << 10;
    // From this size on, the rest of a payload is received in place. Below it, one more batch that
    // brings the next requests along is cheaper than a receive of its own.
    static constexpr size_t direct_bytes = 32u << 10;

    explicit InputStream(runtime::Connection& connection) : connection_(connection) {}

    // Gives it the memory to receive into, before anything else.
    void open(runtime::Buffer batch) { batch_ = std::move(batch); }

    [[nodiscard]] size_t buffered() const { return end_ - begin_; }
    // The next bytes, where they lie; valid until the next call that receives.
    [[nodiscard]] Bytes view(size_t bytes) const {
        PF_ASSERT(bytes <= buffered());
        return Bytes(batch_.bytes()).subspan(begin_, bytes);
    }
    void consume(size_t bytes) {
        PF_ASSERT(bytes <= buffered());
        begin_ += bytes;
    }
    // Receives until `bytes` (at most batch_bytes) are buffered. Errc::disconnected at the end.
    [[nodiscard]] runtime::Task<Status> need(size_t bytes);
    [[nodiscard]] runtime::Task<Status> read(MutableBytes to);
    [[nodiscard]] runtime::Task<Status> skip(uint64_t bytes);

  private:
    size_t copy_buffered(MutableBytes to);

    runtime::Connection& connection_;
    runtime::Buffer batch_;
    size_t begin_ = 0;
    size_t end_ = 0;
};

}  // namespace pf::attach::nbd
