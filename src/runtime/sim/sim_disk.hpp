// A simulated disk. It belongs to the Simulation and outlives the processes that open it.
//
// Model. A completed write sits in a volatile cache, in order of completion; a flush makes durable
// what had completed when the flush was submitted. At a power loss every unflushed write, in flight
// ones included, independently persists, is dropped, or is torn at 512 bytes; a later overlapping
// write may persist without an earlier one. Without a volatile cache a completed write is durable
// and only writes in flight are open. After a failed flush the writes it covered are never made
// durable by a later flush. A write through the cache is durable when it completes. When a process
// is killed its completed writes stay, and each write in flight reaches the device or not. Reads
// and writes take effect when they complete.
//
// A write's bytes are taken when it is submitted, and must not change while it is in flight
// (asserted). Offsets, lengths and memory must be 4 KiB-aligned (asserted).
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/disk.hpp"
#include "runtime/sim/event_queue.hpp"
#include "runtime/sim/faults.hpp"
#include "runtime/sim/medium.hpp"

namespace pf::runtime::sim {

class SimDiskHandle;
class SimNode;
class SimReactor;
class Simulation;

// A write (or discard) that a power loss now may keep, drop or tear.
struct UnflushedWrite {
    std::shared_ptr<const WriteData> data;
    bool completed = false;  // false: in flight, never acked
    uint64_t sequence = 0;   // order of completion, or of submission for writes in flight
    bool stuck = false;      // a flush failed on it: only luck makes it durable
};

// Everything that decides what a power loss now can leave behind: see CrashEnumerator.
struct CrashPoint {
    Medium durable;
    std::vector<UnflushedWrite> writes;  // completed ones in order of completion, then in flight
};

class SimDisk final : public EventSink {
  public:
    SimDisk(Simulation& simulation, uint32_t id, std::string name, DiskModel model);

    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] DiskModel& model() { return model_; }  // may be changed at any time

    // What a reader would see now, and what is durable for certain.
    [[nodiscard]] const Medium& contents() const { return current_; }
    [[nodiscard]] const Medium& durable() const { return durable_; }

    // Crash states. `capture` is cheap (pages and data are shared) and can be taken at any moment;
    // the change hook runs after each submission, completion and flush that changes it.
    [[nodiscard]] CrashPoint capture() const;
    void on_change(std::function<void(SimDisk&)> hook) { change_hook_ = std::move(hook); }
    // Another medium in the drive. Only while no process has it open.
    void replace(Medium medium);
    void wipe() { replace(Medium(model_.size_bytes)); }

    // Faults.
    void inject(const DiskFault& fault) { scripted_.push_back(fault); }
    void clear_faults();
    void flip_bit(uint64_t offset, unsigned bit);  // bit rot, now
    void on_fault(FaultHook hook) { fault_hook_ = std::move(hook); }
    [[nodiscard]] uint64_t injected(FaultKind kind) const {
        return injected_[static_cast<size_t>(kind)];
    }

    // Operations and bytes that were submitted so far.
    struct Counters {
        std::array<uint64_t, 4> operations{};  // by DiskOp::Kind
        uint64_t read_bytes = 0;
        uint64_t written_bytes = 0;
    };
    [[nodiscard]] const Counters& counters() const { return counters_; }
    [[nodiscard]] size_t unflushed_writes() const { return unflushed_.size(); }
    [[nodiscard]] size_t in_flight() const { return in_flight_count_; }

    void on_event(uint64_t token) override;

  private:
    friend class SimDiskHandle;
    friend class SimNode;
    friend class SimReactor;

    // An operation between submission and completion. Its slot is reused; `generation` tells a late
    // event of a forgotten operation from one of the slot's new owner.
    struct InFlight {
        DiskOp* op = nullptr;
        SimReactor* reactor = nullptr;
        uint32_t generation = 0;
        bool used = false;
        DiskOp::Kind kind = DiskOp::Kind::read;
        uint64_t sequence = 0;
        uint64_t completed_before = 0;  // of a flush: covers writes with a smaller sequence
        std::shared_ptr<const WriteData> data;
        int error = 0;
        bool faulty = false;
        FaultKind fault = FaultKind::error;
        uint64_t other_offset = 0;
    };

    void submit(SimReactor& reactor, DiskOp& op);
    // Called by the node: its process is gone, nothing of it may be touched again.
    void forget(const SimReactor& reactor);
    void lose_power();

    [[nodiscard]] Nanos draw_latency(const DiskOp& op);
    [[nodiscard]] std::shared_ptr<const WriteData> take_data(const DiskOp& op) const;
    void choose_fault(const DiskOp& op, InFlight& slot, Nanos& latency);
    void choose_random_fault(const DiskOp& op, InFlight& slot, Nanos& latency);
    void report(FaultKind kind, DiskOp::Kind operation, uint64_t offset, uint64_t length,
                uint64_t other_offset = 0);
    uint32_t take_slot();
    void free_slot(InFlight& slot);

    void complete_read(InFlight& slot);
    void complete_write(InFlight& slot);
    [[nodiscard]] bool earlier_flush_in_flight(const InFlight& slot) const;
    void fail_flush(const InFlight& slot);
    void complete_flush(InFlight& slot);
    void supersede(std::deque<UnflushedWrite>& older, const WriteData& newer);
    void cache_write(std::shared_ptr<const WriteData> data);
    void write_through(const WriteData& data);
    void cache_partial_write(const WriteData& data);
    void trim_cache();
    [[nodiscard]] std::vector<const InFlight*> writes_in_flight() const;
    void persist_by_chance(const UnflushedWrite& write);
    void changed();

    Simulation& simulation_;
    uint32_t id_;
    std::string name_;
    DiskModel model_;
    const SimDiskHandle* holder_ = nullptr;  // who opened it exclusively

    Medium current_;
    Medium durable_;
    std::deque<UnflushedWrite> unflushed_;
    uint64_t unflushed_bytes_ = 0;
    uint64_t next_sequence_ = 1;

    std::vector<InFlight> slots_;
    std::vector<uint32_t> free_slots_;
    size_t in_flight_count_ = 0;

    std::vector<DiskFault> scripted_;
    std::array<uint64_t, fault_kind_count> injected_{};
    FaultHook fault_hook_;
    std::function<void(SimDisk&)> change_hook_;
    Counters counters_;
};

// What a process holds: SimDisk opened by one reactor.
class SimDiskHandle final : public Disk {
  public:
    SimDiskHandle(SimDisk& disk, SimReactor& reactor, const DiskOptions& options);
    ~SimDiskHandle() override;

    void submit(DiskOp& op) override;
    [[nodiscard]] uint64_t size_bytes() const override { return disk_.current_.size_bytes(); }
    [[nodiscard]] bool volatile_cache() const override { return volatile_cache_; }
    [[nodiscard]] bool quick_write_through() const override {
        return volatile_cache_ && disk_.model_.fua;
    }
    [[nodiscard]] bool can_discard() const override { return true; }
    [[nodiscard]] const std::string& name() const override { return disk_.name(); }

  private:
    SimDisk& disk_;
    SimReactor& reactor_;
    bool volatile_cache_;
    bool read_only_;
};

}  // namespace pf::runtime::sim
