// Reads the log and tells where it ends: used by the mount and by pfinspect.
//
// Who reads on in order keeps the stretch before and gets the next one while it works on this one.
// So a read may be in flight between two calls: stop() before the reader goes.
#pragma once

#include <algorithm>
#include <set>
#include <vector>

#include "runtime/reactor.hpp"
#include "runtime/sync.hpp"
#include "tray/log_format.hpp"

namespace pf::tray {

class LogReader {
  public:
    LogReader(runtime::Disk& disk, const Superblock& superblock)
        : disk_(disk), superblock_(superblock) {}

    // A block that was durable and cannot be read now (T6, T7), and the shards it was about.
    struct Lost {
        uint64_t sequence = 0;
        ShardFilter shards;
    };
    struct End {
        uint64_t last = 0;       // last block of the chain; log_start - 1 if there is none
        uint32_t last_crc = 0;   // what the next block would name as its predecessor's
        uint64_t confirmed = 0;  // data of all records up to here needs no check
        std::vector<Lost> lost;  // in order; at most the ring
    };
    // Before the first block behind the root.
    [[nodiscard]] static End begin(const Root& root) {
        return {root.log_start - 1, root.log_previous, root.log_start - 1, {}};
    }
    // Follows the chain (T2) from `end` to the end of a stretch. What is confirmed now can be
    // applied at once: it belongs to the chain, unless a later call refuses the whole log. False:
    // the chain ends here; finish() comes next and tells why. corrupt: the log is newer than the
    // root (T9).
    [[nodiscard]] runtime::Task<Result<bool>> follow(Root root, End& end);
    // Looks behind the end of the chain, and around blocks that are known to be missing from it.
    [[nodiscard]] runtime::Task<Result<End>> finish(Root root, End end);
    // All of it.
    [[nodiscard]] runtime::Task<Result<End>> find_end(Root root);

    // The raw block of a ring slot; valid until the next call. A block that the device cannot read
    // comes as zeros, and is remembered; more than max_unreadable of them are an error, since then
    // it is the device that is broken.
    [[nodiscard]] runtime::Task<Result<Bytes>> read(uint64_t sequence);

    // A block of the chain that was followed. corrupt: twice something else was read.
    [[nodiscard]] runtime::Task<Result<LogBlock>> read_chained(Root root, uint64_t sequence);

    // Waits for what is in flight.
    [[nodiscard]] runtime::Task<void> stop();

  private:
    static constexpr uint64_t max_window_blocks = 256;
    static constexpr size_t max_unreadable = 8;

    // Slots in memory, one after the other.
    struct Window {
        runtime::Buffer memory;
        uint64_t first = 0;
        uint64_t slots = 0;
        [[nodiscard]] bool contains(uint64_t slot) const {
            return slot >= first && slot < first + slots;
        }
        [[nodiscard]] Bytes block(uint64_t slot) const {
            return memory.bytes().subspan((slot - first) * block_bytes, block_bytes);
        }
    };
    // The one read that is not waited for at once.
    struct Ahead : runtime::DiskOp {
        runtime::Event done;
        bool in_flight = false;
    };

    // What all readable blocks of the root's incarnation say together.
    struct Watermarks {
        uint64_t durable = 0;
        uint64_t confirmed = 0;
    };

    [[nodiscard]] Status check_root(const Root& root, uint64_t sequence,
                                    const LogHeader& header) const;
    // The same for a block that may be anything.
    [[nodiscard]] Status check_root_of(const Root& root, uint64_t sequence, Bytes block) const;
    [[nodiscard]] bool is_durable(const Root& root, uint64_t expected, uint64_t sequence,
                                  Bytes block) const;
    [[nodiscard]] runtime::Task<Status> move_to(uint64_t slot);
    // Into the window. A block that the device cannot read comes as zeros.
    [[nodiscard]] runtime::Task<Status> read_slots(uint64_t slot, uint64_t count);
    // Slots that are read together: not more than a quarter of the ring, so that small ones are
    // read like large ones.
    [[nodiscard]] uint64_t window_blocks() const {
        return std::clamp<uint64_t>(superblock_.log_blocks / 4, 1, max_window_blocks);
    }
    [[nodiscard]] uint64_t window_from(uint64_t slot) const {
        return std::min(window_blocks(), superblock_.log_blocks - slot);
    }
    void read_ahead();
    void forget_unreadable(uint64_t slot, uint64_t count);
    [[nodiscard]] bool unreadable(uint64_t sequence) const {
        return unreadable_.contains(sequence % superblock_.log_blocks);
    }
    // The block itself, nothing read ahead.
    [[nodiscard]] runtime::Task<Result<Bytes>> read_again(uint64_t sequence);
    [[nodiscard]] runtime::Task<Result<End>> survey(Root root);  // log_survey.cpp
    [[nodiscard]] runtime::Task<Result<Watermarks>> read_watermarks(Root root);
    [[nodiscard]] Result<LogBlock> decode_own(const Root& root, uint64_t sequence,
                                              Bytes block) const;

    runtime::Disk& disk_;
    const Superblock& superblock_;
    Window before_, window_, next_;
    Ahead ahead_;
    std::set<uint64_t> unreadable_;  // slots
};

}  // namespace pf::tray
