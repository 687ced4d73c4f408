// Listening, and the connections of one server.
#include "net/greeting.hpp"
#include "net/tcp_session.hpp"
#include "runtime/call_on.hpp"

namespace pf::net {

using runtime::Task;

namespace {

constexpr runtime::Nanos accept_pause = 100 * runtime::milliseconds;

// A connection whose hello has not come yet.
struct Greeting : ListHook {
    explicit Greeting(runtime::Connection& of) : connection(of) {}
    runtime::Connection& connection;
};

// The sessions on one reactor; touched there only.
struct Branch {
    explicit Branch(runtime::Reactor& of) : reactor(of) {}

    void disconnect_all() {
        for (TcpSession* session = sessions.front(); session != nullptr;
             session = sessions.next(*session)) {
            session->disconnect();
        }
    }

    runtime::Reactor& reactor;
    List<TcpSession> sessions;
};

// Shared by the handle and the coroutines. All but the insides of branches belongs to `home`, the
// reactor that listens: it counts connections, and awaits each until it has ended.
struct ServerState {
    ServerState(runtime::Reactor& at, std::unique_ptr<runtime::Listener> from, Handler& to)
        : home(at), listener(std::move(from)), handler(to) {}

    // Stops what happens at home; the other branches are for stop().
    void shut_down() {
        stopping = true;
        listener->shut_down();
        for (Greeting* greeting = greetings.front(); greeting != nullptr;
             greeting = greetings.next(*greeting)) {
            greeting->connection.shut_down();
        }
        branch_on(home).disconnect_all();
    }
    Branch& branch_on(runtime::Reactor& reactor) {
        for (const auto& branch : branches) {
            if (&branch->reactor == &reactor) return *branch;
        }
        return *branches.emplace_back(std::make_unique<Branch>(reactor));
    }

    runtime::Reactor& home;
    std::unique_ptr<runtime::Listener> listener;
    Handler& handler;
    List<Greeting> greetings;
    std::vector<std::unique_ptr<Branch>> branches;  // one per reactor that was handed a connection
    runtime::WaitGroup running;                     // the accept loop and the connections
    uint32_t connections = 0;
    bool stopping = false;
};
using SharedServer = std::shared_ptr<ServerState>;

Task<Result<wire::Hello>> greet(SharedServer server, runtime::Connection& connection) {
    Greeting greeting(connection);
    server->greetings.push_back(greeting);
    Task<Result<wire::Hello>> receiving = receive_hello(connection);
    Result<wire::Hello> hello = co_await receiving;
    // A peer that hangs up is nothing to report.
    if (!hello && hello.error().code != Errc::disconnected && !server->stopping) {
        server->handler.on_peer_error(connection.peer(), hello.error());
    }
    co_return hello;
}

// On the branch's reactor, from the answer to the hello to the end of the connection.
Task<void> run_session(Branch& branch, Handler& handler, wire::Hello hello,
                       std::unique_ptr<runtime::Connection> connection) {
    connection->enter(branch.reactor);
    auto session =
        std::make_shared<TcpSession>(branch.reactor, handler, std::move(connection), hello);
    branch.sessions.push_back(*session);
    auto running = TcpSession::run(std::move(session));
    co_await running;
}

// At home, for as long as the connection lives.
Task<void> serve(SharedServer server, std::unique_ptr<runtime::Connection> connection) {
    Task<Result<wire::Hello>> greeting = greet(server, *connection);
    const Result<wire::Hello> hello = co_await greeting;
    if (hello && !server->stopping) {
        const Route route = server->handler.route(*hello);
        Branch& branch = server->branch_on(*route.reactor);
        connection->leave();
        // Calls arrive in the order they were posted: a stop finds the session in its branch.
        co_await runtime::call_on(branch.reactor, [&] {
            return run_session(branch, *route.handler, *hello, std::move(connection));
        });
    } else {
        connection->shut_down();
    }
    --server->connections;
    server->running.done();
}

void start_serving(const SharedServer& server, std::unique_ptr<runtime::Connection> connection) {
    if (server->stopping || server->connections >= max_connections) {
        connection->shut_down();
        return;
    }
    server->running.add();
    ++server->connections;
    server->home.spawn(serve(server, std::move(connection)));
}

Task<void> accept_all(SharedServer server) {
    while (!server->stopping) {
        auto connection = co_await server->listener->accept();
        if (connection) {
            start_serving(server, std::move(*connection));
        } else if (!server->stopping) {
            // Out of descriptors or the like: those who wait are served when there are some again.
            co_await runtime::sleep_for(accept_pause);
        }
    }
    server->running.done();
}

Task<void> stopped(SharedServer server) {
    for (const auto& branch : server->branches) {
        Branch& each = *branch;
        co_await runtime::call_on(each.reactor, [&each] { each.disconnect_all(); });
    }
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
    auto state = std::make_shared<ServerState>(reactor, std::move(listener), handler);
    state->running.add();
    reactor.spawn(accept_all(state));
    return std::make_unique<TcpServer>(std::move(state));
}

}  // namespace pf::net
