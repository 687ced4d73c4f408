// A write between write() and commit(). Pooled; holds everything that logging it again at the head
// needs (T5), because the caller's memory is only valid until write() completes.
#pragma once

#include <array>
#include <coroutine>

#include "tray/log_writer.hpp"
#include "tray/map.hpp"

namespace pf::tray {

class Engine;

struct PendingWrite : LogItem {
    Engine* engine = nullptr;
    Generation* generation = nullptr;
    Position position;
    RequestName request;
    WriteKind kind = WriteKind::data;
    uint32_t block = 0;
    uint32_t count = 0;
    uint32_t extent_count = 0;
    uint32_t metadata_blocks = 0;  // reserved for a table that it makes
    std::array<Extent, max_write_blocks> extents;
    std::array<uint32_t, max_write_blocks> crcs;
    uint32_t data_runs = 0;  // disk operations that carry some of the data (DataWriter)
    int32_t data_result = 0;
    std::coroutine_handle<> waiter;
    bool finished = false;
    bool durable = false;
    bool moved_in_log = false;  // its record in the log is now a later one (T5)
    ShardLink in_shard;

    [[nodiscard]] uint32_t crc_count() const { return kind == WriteKind::data ? count : 0; }
    [[nodiscard]] WriteRecord record(bool logged_again) const {
        WriteRecord result;
        result.shard = generation->id.shard;
        result.snap_seq = generation->id.snap_seq;
        result.position = position;
        result.request = request;
        result.kind = kind;
        result.block = block;
        result.count = count;
        result.logged_again = logged_again;
        result.extents = {extents.data(), extent_count};
        result.crcs = std::as_bytes(std::span(crcs.data(), crc_count()));
        return result;
    }
};

// co_await Finished{write}: until the log has completed it.
struct Finished {
    PendingWrite& write;
    explicit Finished(PendingWrite& pending) : write(pending) {}
    ~Finished() { write.waiter = {}; }
    bool await_ready() const noexcept { return write.finished; }
    void await_suspend(std::coroutine_handle<> handle) const { write.waiter = handle; }
    void await_resume() const noexcept {}
};

}  // namespace pf::tray
