// An NBD server: accepts connections on one listener and serves volumes to them.
//
// Bounds: `max_connections` (one more is closed at once), payload memory for all of them together.
// A resized volume has its new size for connections made afterwards.
//
// Thread rule: one reactor. stop() and await it before destroying the server or its volumes.
#pragma once

#include <memory>
#include <vector>

#include "attach/nbd_session.hpp"

namespace pf::attach::nbd {

struct ServerOptions {
    uint32_t max_connections = 64;
    // Payload of all requests under way over Budgets::small_request_bytes, at least
    // Session::max_charge_bytes, and of all others. The reactor's pool must have both,
    // InputStream::batch_bytes per connection, and what the volumes need.
    uint64_t payload_bytes = 40u << 20;
    uint64_t small_payload_bytes = 32u << 20;
    // How long a new connection waits for the conductor to tell the current size.
    runtime::Nanos refresh_timeout = 2 * runtime::seconds;
    SessionOptions session;
};

struct ServerCounters {
    uint64_t accepted = 0;
    uint64_t refused = 0;          // over max_connections
    uint64_t protocol_errors = 0;  // connections ended for what the client sent
};

class Server {
  public:
    // `report` gets one line for people per connection that ended in an error.
    using Report = void (*)(const Error& error);
    Server(std::vector<Export> exports, ServerOptions options, Report report = nullptr);

    // Accepts until stop().
    void start(std::unique_ptr<runtime::Listener> listener);
    // Accepts no more, answers what is under way for up to `grace`, then closes every connection.
    // Returns when none is left; I/O that the volume holds on to delays it.
    [[nodiscard]] runtime::Task<void> stop(runtime::Nanos grace);

    [[nodiscard]] const ServerCounters& counters() const { return counters_; }
    [[nodiscard]] uint32_t connections() const { return connections_; }

  private:
    [[nodiscard]] runtime::Task<void> accept_loop();
    [[nodiscard]] runtime::Task<void> serve(std::unique_ptr<runtime::Connection> connection);
    [[nodiscard]] runtime::Task<void> await_refresh();
    [[nodiscard]] runtime::Task<void> refresh();

    std::vector<Export> exports_;
    ServerOptions options_;
    Report report_;
    ServerCounters counters_;
    std::unique_ptr<runtime::Listener> listener_;
    Budgets budgets_;
    List<Session> sessions_;
    uint32_t connections_ = 0;
    bool stopping_ = false;
    runtime::WaitGroup under_way_;  // the accept loop, connections, a refresh
    uint64_t refreshes_started_ = 0;
    uint64_t refreshes_ended_ = 0;
    runtime::WaitQueue refreshed_;
};

}  // namespace pf::attach::nbd
