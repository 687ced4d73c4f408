// Several disk operations that are waited for together: a write in more than one extent, a read
// over scattered blocks. Pooled and reused, so that the common sizes allocate nothing.
#pragma once

#include <memory>
#include <vector>

#include "runtime/disk.hpp"

namespace pf::tray {

class IoBatch {
  public:
    struct Part : runtime::DiskOp {
        IoBatch* batch = nullptr;
        uint32_t first_iov = 0;
    };

    void clear() {
        used_ = 0;
        iovs_.clear();
    }
    // A part whose memory is added next with add_memory().
    void add_part(runtime::DiskOp::Kind kind, uint64_t offset) {
        if (used_ == parts_.size()) parts_.push_back(std::make_unique<Part>());
        Part& part = *parts_[used_++];
        part.kind = kind;
        part.offset = offset;
        part.length = 0;
        part.first_iov = static_cast<uint32_t>(iovs_.size());
        part.iov_count = 0;
    }
    void add_memory(std::byte* data, size_t bytes) {
        Part& part = *parts_[used_ - 1];
        iovs_.push_back({data, bytes});
        ++part.iov_count;
        part.length += bytes;
    }
    // The last memory goes on by `bytes`.
    void extend_memory(size_t bytes) {
        iovs_.back().iov_len += bytes;
        parts_[used_ - 1]->length += bytes;
    }
    // Start of a part's memory.
    [[nodiscard]] void* memory_of(uint32_t index) const {
        return iovs_[parts_[index]->first_iov].iov_base;
    }
    [[nodiscard]] uint32_t parts() const { return used_; }
    [[nodiscard]] const Part& part(uint32_t index) const { return *parts_[index]; }

    // Submits all; `finished(context, result)` is called once, from the reactor loop.
    void submit(runtime::Disk& disk, void (*finished)(void* context, int32_t result),
                void* context) {
        finished_ = finished;
        context_ = context;
        result_ = 0;
        left_ = used_;
        for (uint32_t i = 0; i < used_; ++i) {
            Part& part = *parts_[i];
            part.batch = this;
            part.iov = iovs_.data() + part.first_iov;
            part.complete = [](runtime::DiskOp& op) {
                auto& done = static_cast<Part&>(op);
                done.batch->part_done(done.result);
            };
            disk.submit(part);
        }
    }

  private:
    void part_done(int32_t result) {
        if (result != 0) result_ = result;
        if (--left_ == 0) finished_(context_, result_);
    }

    std::vector<std::unique_ptr<Part>> parts_;
    std::vector<iovec> iovs_;
    uint32_t used_ = 0;
    uint32_t left_ = 0;
    int32_t result_ = 0;
    void (*finished_)(void*, int32_t) = nullptr;
    void* context_ = nullptr;
};

}  // namespace pf::tray
