// The read path of a shard: check, take memory, let the tray read and verify, answer with the CRCs.
#include "base/log.hpp"
#include "store/shard.hpp"

namespace pf::pfs {

using runtime::Task;

Task<void> Shard::read(net::ServerChannel& channel, net::Incoming incoming) {
    running_.add();
    const wire::Command& command = incoming.command;
    net::Reply answer;
    runtime::Nanos submitted_at = 0;
    runtime::Nanos read_at = 0;
    Answer refused = check_state(command);
    if (!refused) refused = check_range(command, wire::max_data_bytes);
    // Clients widen to whole blocks (T14): only a whole block has a checksum.
    if (!refused &&
        (command.offset % block_bytes != 0 || command.length % block_bytes != 0 ||
         command.offset / chunk_bytes != (command.offset + command.length - 1) / chunk_bytes)) {
        refused = Errc::invalid_argument;
    }
    Errc status = refused.value_or(Errc::ok);
    if (status == Errc::ok) {
        const uint32_t blocks = command.length / block_bytes;
        runtime::BufferPool& buffers = context_.reactor.buffers();
        // CRC memory first: who holds data waits for nothing more, so the pool cannot deadlock.
        runtime::Buffer crcs_memory;
        if (blocks > net::Incoming::inline_crcs) {
            crcs_memory = co_await buffers.allocate(blocks * sizeof(uint32_t));
        }
        answer.data = co_await buffers.allocate(command.length);
        tray::ReadRequest request;
        request.shard = state_.shard;
        request.snap_seq =
            command.snap_seq == wire::head_generation ? state_.snap_seq : command.snap_seq;
        request.block = static_cast<uint32_t>(command.offset / block_bytes);
        request.count = blocks;
        request.to = answer.data.bytes();
        request.crcs = answer.make_crcs(std::move(crcs_memory), blocks);
        submitted_at = context_.reactor.now();
        Task<Status> reading = tray_.read(request);
        const Status done = co_await reading;
        read_at = context_.reactor.now();
        if (done) {
            answer.data_length = command.length;
        } else {
            status = done.error().code;
            answer = {};
        }
    }
    reply(channel, incoming, status, std::move(answer), read_at - submitted_at);
    account(incoming, status);
    const runtime::Nanos took = context_.reactor.now() - incoming.received_at;
    if (status == Errc::ok) {
        ++load_.reads;
        load_.read_bytes += command.length;
        load_.read_us += took / runtime::microseconds;
        context_.stats.read_bytes += command.length;
    }
    if (took >= context_.slow_io) {
        ++context_.stats.slow_operations;
        log_warning(
            "slow read: shard {:#x} offset {} length {} took {} ms: queue and memory {}, media {} "
            "({})",
            state_.shard, command.offset, command.length, took / runtime::milliseconds,
            submitted_at == 0 ? 0 : (submitted_at - incoming.received_at) / runtime::milliseconds,
            (read_at - submitted_at) / runtime::milliseconds, describe(status));
    }
    running_.done();
}

Task<void> Shard::block_states(net::ServerChannel& channel, net::Incoming incoming) {
    running_.add();
    const wire::Command& command = incoming.command;
    Answer refused = check_state(command);
    if (!refused) refused = check_range(command, UINT32_MAX);
    if (!refused && (command.offset % block_bytes != 0 || command.length % block_bytes != 0)) {
        refused = Errc::invalid_argument;
    }
    net::Reply answer;
    Errc status = refused.value_or(Errc::ok);
    if (status == Errc::ok) {
        tray::GenerationId generation;
        generation.shard = state_.shard;
        generation.snap_seq =
            command.snap_seq == wire::head_generation ? state_.snap_seq : command.snap_seq;
        Task<Result<std::vector<tray::BlockRun>>> looking =
            tray_.block_states(generation, static_cast<uint32_t>(command.offset / block_bytes),
                               command.length / block_bytes, wire::max_block_runs);
        const Result<std::vector<tray::BlockRun>> runs = co_await looking;
        status = runs ? Errc::ok : runs.error().code;
        if (runs && !runs->empty()) {
            // What does not fit is asked for again, from where this ends.
            const size_t count = runs->size();
            const size_t bytes = count * sizeof(wire::BlockRun);
            answer.data = co_await context_.reactor.buffers().allocate(bytes);
            for (size_t i = 0; i < count; ++i) {
                const wire::BlockRun run{(*runs)[i].count, static_cast<uint32_t>((*runs)[i].state)};
                pf::store(answer.data.bytes(), run, i * sizeof(run));
            }
            answer.data_length = static_cast<uint32_t>(bytes);
        }
    }
    reply(channel, incoming, status, std::move(answer), 0);
    account(incoming, status);
    running_.done();
}

}  // namespace pf::pfs
