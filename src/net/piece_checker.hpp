// Checks the data of a payload against its table of CRCs while the data comes in, in steps of any
// size. Data is cut into pieces at the block borders of the volume, so that each CRC is the one
// that the store keeps; a compare-and-write has two halves that are cut alike.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>

#include "base/crc32c.hpp"
#include "base/units.hpp"

namespace pf::net {

class PieceChecker {
  public:
    // `length` is that of one half; `crcs` outlives the checker.
    PieceChecker(std::span<const uint32_t> crcs, uint64_t offset, uint32_t length)
        : crcs_(crcs), lead_(static_cast<uint32_t>(offset % block_bytes)), length_(length) {
        begin_half();
    }

    // Data that is in place already.
    void add(Bytes data) {
        while (!data.empty()) {
            const size_t step = std::min<size_t>(data.size(), left_in_piece_);
            crc_ = crc32c(data.first(step), crc_);
            advance(static_cast<uint32_t>(step));
            data = data.subspan(step);
        }
    }
    // Copies and checks. `from` is the inbox, which nobody else writes: its CRC is that of the
    // copy, and reading it does not wait for the target's lines, which may be on another core.
    void copy(std::byte* to, Bytes from) {
        while (!from.empty()) {
            const size_t step = std::min<size_t>(from.size(), left_in_piece_);
            crc_ = crc32c(from.first(step), crc_);
            std::memcpy(to, from.data(), step);
            advance(static_cast<uint32_t>(step));
            to += step;
            from = from.subspan(step);
        }
    }
    // Whether every piece that is complete matched.
    [[nodiscard]] bool ok() const { return ok_; }

  private:
    void begin_half() {
        left_in_half_ = length_;
        left_in_piece_ = std::min(length_, block_bytes - lead_);
    }
    void advance(uint32_t step) {
        left_in_piece_ -= step;
        left_in_half_ -= step;
        if (left_in_piece_ > 0) return;
        PF_ASSERT(at_ < crcs_.size());
        ok_ = ok_ && crcs_[at_] == crc_;
        ++at_;
        crc_ = 0;
        left_in_piece_ = std::min(left_in_half_, block_bytes);
        if (left_in_half_ == 0) begin_half();
    }

    std::span<const uint32_t> crcs_;
    uint32_t lead_;
    uint32_t length_;
    uint32_t left_in_half_ = 0;
    uint32_t left_in_piece_ = 0;
    uint32_t crc_ = 0;
    size_t at_ = 0;
    bool ok_ = true;
};

}  // namespace pf::net
