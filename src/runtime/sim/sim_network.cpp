// Streams: sending and arriving. Their ends and partitions are in sim_network_faults.cpp,
// connecting and listening in sim_connection.cpp.
#include "runtime/sim/sim_network.hpp"

#include <algorithm>
#include <cstring>

#include "base/crc32c.hpp"
#include "runtime/sim/sim_connection.hpp"
#include "runtime/sim/simulation.hpp"

namespace pf::runtime::sim {

namespace {

uint64_t total_bytes(const StreamOp& op) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < op.iov_count; ++i) total += op.iov[i].iov_len;
    return total;
}

// Calls `use(memory, count)` for up to `count` bytes of the vectors, from `skip` on.
template <class Use>
void for_each_part(const StreamOp& op, uint64_t skip, uint64_t count, Use&& use) {
    for (uint32_t i = 0; i < op.iov_count && count > 0; ++i) {
        const iovec& part = op.iov[i];
        if (skip >= part.iov_len) {
            skip -= part.iov_len;
            continue;
        }
        const uint64_t now = std::min<uint64_t>(count, part.iov_len - skip);
        use(static_cast<std::byte*>(part.iov_base) + skip, now);
        count -= now;
        skip = 0;
    }
}

}  // namespace

SimNetwork::SimNetwork(Simulation& simulation, NetworkModel model)
    : simulation_(simulation), model_(model) {}

SimNetwork::~SimNetwork() = default;

uint64_t SimNetwork::token_of(EventKind kind, uint64_t id, unsigned side) {
    return static_cast<uint64_t>(kind) << 60 | uint64_t{side} << 59 | id;
}

void SimNetwork::schedule(Nanos time, EventKind kind, uint64_t id, unsigned side) {
    simulation_.schedule(time, *this, token_of(kind, id, side));
}

void SimNetwork::on_event(uint64_t token) {
    const auto kind = static_cast<EventKind>(token >> 60);
    const auto side = static_cast<unsigned>(token >> 59 & 1);
    const uint64_t id = token & ((uint64_t{1} << 59) - 1);
    switch (kind) {
        case EventKind::deliver:
            if (SimLink* link = find(id)) deliver(*link, side);
            break;
        case EventKind::stall:
            if (SimLink* link = find(id)) {
                const SimPipe& pipe = link->pipes[side];
                const bool long_enough =
                    simulation_.now() - pipe.stalled_since >= model_.stall_reset;
                if (pipe.stalled && long_enough) break_link(*link, ETIMEDOUT);
            }
            break;
        case EventKind::keepalive:
            if (SimLink* link = find(id)) probe(*link, side);
            break;
        case EventKind::connect_arrives:
            connect_arrives(id);
            break;
        case EventKind::connect_answer:
            answer_connect(id);
            break;
        case EventKind::refused:
            finish_connect(id, ECONNREFUSED);
            break;
        case EventKind::timeout:
            finish_connect(id, ETIMEDOUT);
            break;
    }
}

SimLink* SimNetwork::find(uint64_t id) {
    const auto found = links_.find(id);
    return found == links_.end() ? nullptr : found->second.get();
}

void SimNetwork::finish(SimReactor* reactor, StreamOp*& op, int64_t result) {
    if (op == nullptr) return;
    StreamOp& finished = *std::exchange(op, nullptr);
    finished.result = result;
    reactor->arrived(finished);
}

// ---- Sending

void SimNetwork::submit_send(uint64_t id, unsigned side, StreamOp& op) {
    SimLink& link = *find(id);
    SimPipe& pipe = link.pipes[side];
    PF_ASSERT(pipe.send == nullptr && op.complete != nullptr);
    PF_ASSERT(op.iov_count >= 1 && op.iov_count <= StreamOp::max_iovecs);
    pipe.send = &op;
    op.progress = 0;
    simulation_.trace(TraceKind::send, id << 1 | side, total_bytes(op), 0);
    if (send_hook_) send_hook_(link.holder[side]->node(), op);
    const int planned = link.holder[side]->node().count_operation();
    const int error = planned != 0 ? planned : fault_of_send(link, side);
    if (error != 0) return break_link(link, error);
    if (pipe.send_error != 0) return finish(link.holder[side], pipe.send, -pipe.send_error);
    push_bytes(link, side);
}

int SimNetwork::fault_of_send(SimLink& link, unsigned side) {
    if (link.pipes[side].send_error != 0 || model_.reset_ppm == 0) return 0;
    return simulation_.rng().chance_ppm(model_.reset_ppm) ? ECONNRESET : 0;
}

void SimNetwork::push_bytes(SimLink& link, unsigned side) {
    SimPipe& pipe = link.pipes[side];
    StreamOp& op = *pipe.send;
    const uint64_t total = total_bytes(op);
    const uint64_t room = model_.window_bytes - std::min(model_.window_bytes, pipe.held());
    const uint64_t count = std::min(room, total - op.progress);
    if (count > 0) {
        if (pipe.first > pipe.held()) {
            pipe.bytes.erase(pipe.bytes.begin(),
                             pipe.bytes.begin() + static_cast<ptrdiff_t>(pipe.first));
            pipe.first = 0;
        }
        uint32_t crc = 0;
        for_each_part(op, op.progress, count, [&](const std::byte* from, uint64_t bytes) {
            pipe.bytes.insert(pipe.bytes.end(), from, from + bytes);
            if (simulation_.options().trace_contents) crc = crc32c({from, bytes}, crc);
        });
        simulation_.trace_word(crc);
        op.progress += count;
        corrupt_by_chance(link, side, count);
        uint64_t head = count;
        if (count > 1 && simulation_.rng().chance_ppm(model_.fragment_ppm)) {
            head = 1 + simulation_.rng().below(count - 1);
        }
        push_segment(link, side, SimPipe::Segment::Kind::data, head);
        if (head < count) push_segment(link, side, SimPipe::Segment::Kind::data, count - head);
    }
    if (op.progress == total) {
        finish(link.holder[side], pipe.send, static_cast<int64_t>(total));
    }
}

void SimNetwork::push_segment(SimLink& link, unsigned side, SimPipe::Segment::Kind kind,
                              uint64_t bytes) {
    SimPipe& pipe = link.pipes[side];
    Rng& rng = simulation_.rng();
    pipe.free_at = std::max(pipe.free_at, simulation_.now());
    if (model_.bytes_per_second > 0) pipe.free_at += bytes * seconds / model_.bytes_per_second;
    Nanos arrival = pipe.free_at + model_.delay.draw(rng);
    if (model_.late_ppm > 0 && rng.chance_ppm(model_.late_ppm)) arrival += model_.late_extra;
    if (!pipe.segments.empty()) arrival = std::max(arrival, pipe.segments.back().arrival);
    pipe.segments.push_back({kind, arrival, bytes});
    schedule_first(link, side);
}

void SimNetwork::schedule_first(SimLink& link, unsigned side) {
    SimPipe& pipe = link.pipes[side];
    if (pipe.segments.empty() || pipe.scheduled || pipe.stalled) return;
    pipe.scheduled = true;
    schedule(pipe.segments.front().arrival, EventKind::deliver, link.id, side);
}

void SimNetwork::corrupt_by_chance(SimLink& link, unsigned side, size_t count) {
    SimPipe& pipe = link.pipes[side];
    bool hit = model_.corrupt_ppm > 0 && simulation_.rng().chance_ppm(model_.corrupt_ppm);
    const auto planned = corrupt_next_.find({pipe.from, pipe.to});
    if (planned != corrupt_next_.end() && planned->second > 0) {
        --planned->second;
        hit = true;
    }
    if (!hit) return;
    const size_t at = pipe.bytes.size() - count + simulation_.rng().below(count);
    pipe.bytes[at] ^= std::byte{1} << simulation_.rng().below(8);
    ++corrupted_;
}

// ---- Arriving

void SimNetwork::deliver(SimLink& link, unsigned side) {
    SimPipe& pipe = link.pipes[side];
    const Nanos now = simulation_.now();
    pipe.scheduled = false;
    if (pipe.segments.empty()) return;
    if (blocked(pipe.from, pipe.to) || !simulation_.node(pipe.to).powered()) {
        pipe.stalled = true;
        pipe.stalled_since = now;
        return schedule(now + model_.stall_reset, EventKind::stall, link.id, side);
    }
    while (!pipe.segments.empty() && pipe.segments.front().arrival <= now) {
        const SimPipe::Segment segment = pipe.segments.front();
        pipe.segments.pop_front();
        simulation_.trace(TraceKind::deliver, link.id << 1 | side, segment.bytes,
                          static_cast<uint64_t>(segment.kind));
        take_segment(link, side, segment);
    }
    serve_receive(link, side);
    schedule_first(link, side);
}

void SimNetwork::take_segment(SimLink& link, unsigned side, const SimPipe::Segment& segment) {
    SimPipe& pipe = link.pipes[side];
    SimPipe& back = link.pipes[1 - side];
    switch (segment.kind) {
        case SimPipe::Segment::Kind::data:
            pipe.arrived += segment.bytes;
            if (link.holder[1 - side] == nullptr) {
                // Nobody is there any more: the sender learns it.
                discard_arrived(link, side);
                push_segment(link, 1 - side, SimPipe::Segment::Kind::reset, 0);
            } else if (pipe.receive_error != 0) {
                discard_arrived(link, side);
            }
            break;
        case SimPipe::Segment::Kind::end:
            pipe.end_arrived = true;
            break;
        case SimPipe::Segment::Kind::reset:
            ++resets_;
            // What had arrived but was not read may be lost with the connection.
            if (simulation_.rng().below(2) == 0) discard_arrived(link, side);
            if (pipe.receive_error == 0) pipe.receive_error = ECONNRESET;
            if (back.send_error == 0) back.send_error = ECONNRESET;
            finish(link.holder[1 - side], back.send, -back.send_error);
            break;
    }
}

void SimNetwork::discard_arrived(SimLink& link, unsigned side) {
    SimPipe& pipe = link.pipes[side];
    pipe.first += std::exchange(pipe.arrived, 0);
    if (pipe.send != nullptr) push_bytes(link, side);
}

void SimNetwork::submit_receive(uint64_t id, unsigned side, StreamOp& op) {
    SimLink& link = *find(id);
    SimPipe& pipe = link.pipes[1 - side];
    PF_ASSERT(pipe.receive == nullptr && op.complete != nullptr && total_bytes(op) > 0);
    pipe.receive = &op;
    simulation_.trace(TraceKind::receive, id << 1 | side, total_bytes(op), 0);
    const int planned = link.holder[side]->node().count_operation();
    if (planned != 0) return break_link(link, planned);
    serve_receive(link, 1 - side);
}

void SimNetwork::serve_receive(SimLink& link, unsigned side) {
    SimPipe& pipe = link.pipes[side];
    SimReactor* reader = link.holder[1 - side];
    if (pipe.receive == nullptr) return;
    if (pipe.arrived == 0) {
        if (pipe.receive_error != 0) return finish(reader, pipe.receive, -pipe.receive_error);
        if (pipe.end_arrived) finish(reader, pipe.receive, 0);
        return;
    }
    uint64_t count = std::min<uint64_t>(pipe.arrived, total_bytes(*pipe.receive));
    if (count > 1 && simulation_.rng().chance_ppm(model_.fragment_ppm)) {
        count = 1 + simulation_.rng().below(count - 1);
    }
    for_each_part(*pipe.receive, 0, count, [&](std::byte* to, uint64_t bytes) {
        std::memcpy(to, pipe.bytes.data() + pipe.first, bytes);
        pipe.first += bytes;
    });
    pipe.arrived -= count;
    finish(reader, pipe.receive, static_cast<int64_t>(count));
    if (pipe.send != nullptr) push_bytes(link, side);
}

}  // namespace pf::runtime::sim
