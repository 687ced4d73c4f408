// Reads the log and tells where it ends: used by the mount and by pfinspect.
#pragma once

#include "runtime/reactor.hpp"
#include "tray/log_format.hpp"

namespace pf::tray {

class LogReader {
  public:
    LogReader(runtime::Disk& disk, const Superblock& superblock)
        : disk_(disk), superblock_(superblock) {}

    struct End {
        uint64_t last = 0;       // last block of the chain; log_start - 1 if there is none
        uint32_t last_crc = 0;   // what the next block would name as its predecessor's
        uint64_t confirmed = 0;  // data of all records up to here needs no check
    };
    // Follows the chain from the root (T2). corrupt: a block in the middle is damaged (T6), or the
    // log is newer than the root (T9).
    [[nodiscard]] runtime::Task<Result<End>> find_end(Root root);

    // The raw block of a ring slot; valid until the next call.
    [[nodiscard]] runtime::Task<Result<Bytes>> read(uint64_t sequence);

  private:
    static constexpr uint32_t read_ahead_blocks = 256;

    [[nodiscard]] Status check_beyond(const Root& root, uint64_t expected, uint64_t sequence,
                                      Bytes block) const;

    runtime::Disk& disk_;
    const Superblock& superblock_;
    runtime::Buffer buffer_;
    uint64_t first_slot_ = 0;
    uint64_t slots_ = 0;
};

}  // namespace pf::tray
