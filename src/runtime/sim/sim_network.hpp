// The simulated network between nodes: listeners, and connections as pairs of byte streams.
//
// Model. Bytes of one direction arrive in order, in segments that take a drawn delay each;
// different directions and connections are independent, so late bytes of an old connection can
// arrive after a new one was made. A receive returns what has arrived, sometimes less. A send
// completes when all its bytes are in the stream's window. shut_down ends the stream after what was
// sent; a killed process's connections are reset at the peer, in order behind the bytes that were
// on the way (some of which are lost); after a power loss the peer hears nothing.
//
// While a direction between two nodes is blocked, its segments wait; a connection whose segments
// have waited for `stall_reset` is reset at both ends. Connecting to a node that is up without a
// listener is refused; to a blocked or powered-off one it times out.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "runtime/network.hpp"
#include "runtime/sim/event_queue.hpp"
#include "runtime/sim/faults.hpp"

namespace pf::runtime::sim {

class SimNode;
class SimReactor;
class Simulation;
class SimConnection;
class SimListener;
class ConnectAwaiter;

// One direction of a connection.
struct SimPipe {
    struct Segment {
        enum class Kind : uint8_t { data, end, reset } kind;
        Nanos arrival;
        uint64_t bytes;
    };
    uint32_t from = 0;  // node ids
    uint32_t to = 0;
    std::vector<std::byte> bytes;  // arrived ones, then those on the way; consumed from `first`
    size_t first = 0;
    size_t arrived = 0;  // bytes that can be received now
    std::deque<Segment> segments;
    bool scheduled = false;  // an event for the first segment is in the queue
    bool stalled = false;    // the first segment waits for a blocked direction
    Nanos stalled_since = 0;
    bool end_arrived = false;
    int send_error = 0;  // errno that sends and receives give from now on
    int receive_error = 0;
    StreamOp* receive = nullptr;
    StreamOp* send = nullptr;
    Nanos free_at = 0;  // bandwidth: when the last byte is on the wire

    [[nodiscard]] size_t held() const { return bytes.size() - first; }
};

struct SimLink {
    uint64_t id = 0;
    SimPipe pipes[2];  // [0] from the connecting side
    // Per side: the process that holds it, or null when it is closed or dead.
    SimReactor* holder[2] = {nullptr, nullptr};
};

class SimNetwork final : public EventSink {
  public:
    SimNetwork(Simulation& simulation, NetworkModel model);
    ~SimNetwork();

    [[nodiscard]] NetworkModel& model() { return model_; }  // may be changed at any time

    // Partitions. `block` one direction only; `partition` both.
    void block(const SimNode& from, const SimNode& to);
    void unblock(const SimNode& from, const SimNode& to);
    void partition(const SimNode& a, const SimNode& b);
    void heal(const SimNode& a, const SimNode& b);
    // Also forgets the corruptions that are still to come.
    void heal_all();
    [[nodiscard]] bool blocked(uint32_t from, uint32_t to) const;

    // Resets every connection between the two; returns how many.
    size_t reset_connections(const SimNode& a, const SimNode& b);
    // Flips one bit of each of the next `sends` sends from a to b.
    void corrupt_next(const SimNode& from, const SimNode& to, uint32_t sends = 1);
    // Called with each send as it is submitted: what its vectors name, not only what they carry.
    void on_send(std::function<void(const SimNode& from, const StreamOp&)> hook) {
        send_hook_ = std::move(hook);
    }
    [[nodiscard]] uint64_t corrupted() const { return corrupted_; }
    [[nodiscard]] uint64_t resets() const { return resets_; }
    [[nodiscard]] size_t connections() const { return links_.size(); }

    void on_event(uint64_t token) override;

  private:
    friend class SimConnection;
    friend class SimListener;
    friend class ConnectAwaiter;
    friend class SimNode;
    friend class SimReactor;

    using Port = std::pair<uint32_t, uint16_t>;  // node id, port
    enum class EventKind : uint8_t {
        deliver,
        stall,
        keepalive,
        connect_arrives,
        connect_answer,
        refused,
        timeout
    };
    struct Connecting {
        ConnectAwaiter* awaiter;
        SimReactor* reactor;
        uint32_t from;
        uint32_t to;
        uint16_t port;
        uint64_t link = 0;  // once the listener has it
        bool done = false;  // the answer is on its way to the coroutine
    };

    [[nodiscard]] static uint64_t token_of(EventKind kind, uint64_t id, unsigned side = 0);
    void schedule(Nanos time, EventKind kind, uint64_t id, unsigned side = 0);

    // Links and their pipes. `side` is the one whose bytes the pipe carries.
    [[nodiscard]] SimLink* find(uint64_t id);
    void submit_send(uint64_t id, unsigned side, StreamOp& op);
    void submit_receive(uint64_t id, unsigned side, StreamOp& op);
    void shut_down(uint64_t id, unsigned side);
    void release(uint64_t id, unsigned side);
    [[nodiscard]] int fault_of_send(SimLink& link, unsigned side);
    void push_bytes(SimLink& link, unsigned side);
    void push_segment(SimLink& link, unsigned side, SimPipe::Segment::Kind kind, uint64_t bytes);
    void schedule_first(SimLink& link, unsigned side);
    void deliver(SimLink& link, unsigned side);
    void take_segment(SimLink& link, unsigned side, const SimPipe::Segment& segment);
    void serve_receive(SimLink& link, unsigned side);
    void discard_arrived(SimLink& link, unsigned side);
    void finish(SimReactor* reactor, StreamOp*& op, int64_t result);
    void break_link(SimLink& link, int error);
    void corrupt_by_chance(SimLink& link, unsigned side, size_t count);
    void leave(SimLink& link, unsigned side, bool power_lost);
    void probe(SimLink& link, unsigned side);
    void collect(uint64_t id);
    void unstall();

    // Connecting.
    uint64_t start_connect(ConnectAwaiter& awaiter, SimReactor& reactor, const Address& address,
                           Nanos timeout);
    void connect_arrives(uint64_t request);
    void answer_connect(uint64_t request);
    void finish_connect(uint64_t request, int error);
    void resume_connect(uint64_t request);
    void cancel_connect(uint64_t request);
    [[nodiscard]] uint64_t take_connected(uint64_t request);
    Result<std::unique_ptr<Listener>> listen(SimReactor& reactor, const Address& address);
    void wake_listener(uint32_t node, uint16_t port);
    // The node's process is gone.
    void forget(SimReactor& reactor, bool power_lost);

    Simulation& simulation_;
    NetworkModel model_;
    std::map<uint64_t, std::unique_ptr<SimLink>> links_;
    uint64_t next_link_ = 1;
    std::map<Port, SimListener*> listeners_;
    std::map<uint64_t, Connecting> connecting_;
    uint64_t next_request_ = 1;
    uint16_t next_port_ = 32768;  // for listeners that ask for port 0
    std::set<std::pair<uint32_t, uint32_t>> blocked_;
    std::map<std::pair<uint32_t, uint32_t>, uint32_t> corrupt_next_;
    std::function<void(const SimNode&, const StreamOp&)> send_hook_;
    uint64_t corrupted_ = 0;
    uint64_t resets_ = 0;
};

}  // namespace pf::runtime::sim
