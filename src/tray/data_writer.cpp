#include "tray/data_writer.hpp"

#include "base/assert.hpp"
#include "base/units.hpp"
#include "runtime/reactor.hpp"
#include "tray/pending_write.hpp"

namespace pf::tray {

using runtime::Task;

void DataWriter::start() {
    running_ = true;
    runtime::Reactor::current().spawn(run_loop());
}

void DataWriter::request_stop() {
    stopping_ = true;
    wake_.wake_all();
}

DataWriter::Run& DataWriter::run_for(uint64_t offset, uint64_t bytes) {
    if (!gathered_.empty()) {
        Run& last = *gathered_.back();
        // One vector of each extent is certain; more than fit only make the operation longer.
        const bool room = last.memory.size() < max_gathered_bytes / block_bytes &&
                          last.length + bytes <= max_gathered_bytes;
        if (room && last.offset + last.length == offset) return last;
    }
    if (free_runs_.empty()) {
        runs_.push_back(std::make_unique<Run>());
        runs_.back()->memory.reserve(max_gathered_bytes / block_bytes);
        runs_.back()->writes.reserve(max_gathered_bytes / block_bytes);
        free_runs_.reserve(runs_.size());
        gathered_.reserve(runs_.size());
        free_runs_.push_back(runs_.back().get());
    }
    Run& run = *free_runs_.back();
    free_runs_.pop_back();
    run.writer = this;
    run.kind = runtime::DiskOp::Kind::write;
    run.offset = offset;
    run.length = 0;
    run.memory.clear();
    run.writes.clear();
    gathered_.push_back(&run);
    return run;
}

void DataWriter::add(PendingWrite& write, std::span<const iovec> data) {
    PF_ASSERT(running_ && !stopping_ && write.extent_count > 0);
    if (gathered_.empty()) wake_.wake_one();
    write.data_runs = 0;
    write.data_result = 0;
    write.data_in_cache = false;
    size_t piece = 0;
    size_t used = 0;  // of that piece
    for (uint32_t i = 0; i < write.extent_count; ++i) {
        uint64_t left = uint64_t{write.extents[i].count} * block_bytes;
        Run& run = run_for(uint64_t{write.extents[i].start} * block_bytes, left);
        run.length += left;
        run.writes.push_back(&write);
        ++write.data_runs;
        while (left > 0) {
            const iovec& memory = data[piece];
            const size_t bytes = std::min<size_t>(left, memory.iov_len - used);
            run.memory.push_back({static_cast<std::byte*>(memory.iov_base) + used, bytes});
            left -= bytes;
            used += bytes;
            if (used == memory.iov_len) {
                ++piece;
                used = 0;
            }
        }
    }
}

void DataWriter::run_done(runtime::DiskOp& op) {
    Run& run = static_cast<Run&>(op);
    DataWriter& writer = *run.writer;
    --writer.runs_in_flight_;
    for (PendingWrite* write : run.writes) {
        if (run.result != 0) write->data_result = run.result;
        if (!run.write_through) write->data_in_cache = true;
        if (--write->data_runs == 0) writer.done_(*write, write->data_result);
    }
    writer.free_runs_.push_back(&run);
}

void DataWriter::submit_gathered() {
    // Alone, a write pays less for a trip through the cache than for a flush of its own.
    const bool lone = disk_.quick_write_through() && runs_in_flight_ == 0 &&
                      gathered_.size() == 1 &&
                      gathered_.front()->writes.size() <= LogWriter::lone_writes;
    runs_in_flight_ += static_cast<uint32_t>(gathered_.size());
    for (Run* run : gathered_) {
        run->write_through = lone;
        run->iov = run->memory.data();
        run->iov_count = static_cast<uint32_t>(run->memory.size());
        run->complete = &run_done;
        disk_.submit(*run);
    }
    gathered_.clear();
}

Task<void> DataWriter::run_loop() {
    while (!stopping_ || !gathered_.empty()) {
        if (gathered_.empty()) {
            co_await wake_.wait();
            continue;
        }
        co_await runtime::end_of_turn();
        submit_gathered();
    }
    running_ = false;
}

}  // namespace pf::tray
