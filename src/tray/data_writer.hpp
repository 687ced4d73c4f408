// Writes the data of user writes. The allocator hands out addresses in order, so what is written in
// one turn of the loop mostly lies side by side: it leaves as few, larger operations, which costs
// less at every layer below. A turn's data is submitted at its end, with its log blocks.
//
// Invariants: a write's data is done once, when every operation that carries a part of it has
// completed; an error in one is an error of every write in it. Operations are pooled: no allocation
// in steady state. Bounded by the writes in flight. Thread rule: the tray's reactor.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/disk.hpp"
#include "runtime/sync.hpp"
#include "runtime/task.hpp"

namespace pf::tray {

struct PendingWrite;

class DataWriter {
  public:
    // A larger operation would delay the answer of its first write more than it saves.
    static constexpr uint64_t max_gathered_bytes = 128u << 10;

    // `done(write, result)` is called from the reactor loop.
    DataWriter(runtime::Disk& disk, void (*done)(PendingWrite&, int32_t))
        : disk_(disk), done_(done) {}

    void start();
    // Everything has completed; the loop ends.
    void request_stop();
    [[nodiscard]] bool stopped() const { return !running_ && runs_in_flight_ == 0; }

    // Takes the extents from `write`; `data` is as long as they are, and stays valid until `done`.
    void add(PendingWrite& write, std::span<const iovec> data);

  private:
    // One disk operation: extents that follow each other.
    struct Run : runtime::DiskOp {
        DataWriter* writer = nullptr;
        std::vector<iovec> memory;
        std::vector<PendingWrite*> writes;
    };

    [[nodiscard]] Run& run_for(uint64_t offset, uint64_t bytes);
    static void run_done(runtime::DiskOp& op);
    void submit_gathered();
    [[nodiscard]] runtime::Task<void> run_loop();

    runtime::Disk& disk_;
    void (*done_)(PendingWrite&, int32_t);
    std::vector<std::unique_ptr<Run>> runs_;
    std::vector<Run*> free_runs_;
    std::vector<Run*> gathered_;  // of this turn; the last may still grow
    uint32_t runs_in_flight_ = 0;
    runtime::WaitQueue wake_;
    bool running_ = false;
    bool stopping_ = false;
};

}  // namespace pf::tray
