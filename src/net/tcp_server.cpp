// Listening, and the connections of one server.
#include "net/tcp_session.hpp"

namespace pf::net {

using runtime::Task;

namespace {

constexpr runtime::Nanos accept_pause = 100 * runtime::milliseconds;

// Shared by the handle, the accept loop and every session's coroutine.
struct ServerState {
    ServerState(std::unique_ptr<runtime::Listener> from, Handler& to)
        : listener(std::move(from)), handler(to) {}

    void shut_down() {
        stopping = true;
        listener->shut_down();
        for (TcpSession* session = sessions.front(); session != nullptr;
             session = sessions.next(*session)) {
            session->disconnect();
        }
    }

    std::unique_ptr<runtime::Listener> listener;
    Handler& handler;
    List<TcpSession> sessions;
    runtime::WaitGroup running;  // the accept loop and the sessions
    uint32_t connections = 0;
    bool stopping = false;
};
using SharedServer = std::shared_ptr<ServerState>;

Task<void> serve(SharedServer server, TcpSession::Shared session) {
    auto running = TcpSession::run(std::move(session));
    co_await running;
    --server->connections;
    server->running.done();
}

void start_session(const SharedServer& server, std::unique_ptr<runtime::Connection> connection) {
    if (server->stopping || server->connections >= max_connections) {
        connection->shut_down();
        return;
    }
    runtime::Reactor& reactor = runtime::Reactor::current();
    auto session = std::make_shared<TcpSession>(reactor, server->handler, std::move(connection));
    server->sessions.push_back(*session);
    server->running.add();
    ++server->connections;
    reactor.spawn(serve(server, std::move(session)));
}

Task<void> accept_all(SharedServer server) {
    while (!server->stopping) {
        auto connection = co_await server->listener->accept();
        if (connection) {
            start_session(server, std::move(*connection));
        } else if (!server->stopping) {
            // Out of descriptors or the like: those who wait are served when there are some again.
            co_await runtime::sleep_for(accept_pause);
        }
    }
    server->running.done();
}

Task<void> stopped(SharedServer server) {
    co_await server->running.wait();
}

class TcpServer final : public Server {
  public:
    explicit TcpServer(SharedServer state) : state_(std::move(state)) {}
    ~TcpServer() override { state_->shut_down(); }

    const runtime::Address& local() const override { return state_->listener->local(); }
    Task<void> stop() override {
        state_->shut_down();
        return stopped(state_);
    }
    uint32_t connections() const override { return state_->connections; }

  private:
    SharedServer state_;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::listen(const runtime::Address& address, Handler& handler) {
    runtime::Reactor& reactor = runtime::Reactor::current();
    PF_TRY_ASSIGN(std::unique_ptr<runtime::Listener> listener, reactor.listen(address));
    auto state = std::make_shared<ServerState>(std::move(listener), handler);
    state->running.add();
    reactor.spawn(accept_all(state));
    return std::make_unique<TcpServer>(std::move(state));
}

}  // namespace pf::net
