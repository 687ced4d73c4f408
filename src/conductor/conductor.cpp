#include "conductor/conductor.hpp"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "base/log.hpp"
#include "conductor/net_store_link.hpp"
#include "conductor/rest.hpp"
#include "conductor/rpc_server.hpp"
#include "meta/sqlite_engine.hpp"

namespace pf::conductor {

using runtime::Task;

namespace {

constexpr size_t max_http_calls = 64;
// A volume of 1 PiB is 16,384 shards, each durable at its store before the answer.
constexpr unsigned http_call_timeout_s = 180;

// Joining the HTTP threads blocks, so it happens beside the reactor.
class BlockingStop : runtime::PostedCall {
  public:
    BlockingStop(runtime::Reactor& reactor, net::HttpServer& server) {
        run = [](runtime::PostedCall& call) { static_cast<BlockingStop&>(call).done_.set(); };
        thread_ = std::thread([this, &reactor, &server] {
            server.stop();
            reactor.post(*this);
        });
    }
    BlockingStop(const BlockingStop&) = delete;
    BlockingStop& operator=(const BlockingStop&) = delete;
    ~BlockingStop() { thread_.join(); }
    [[nodiscard]] Task<void> wait() { return done_.wait(); }

  private:
    runtime::Event done_;
    std::thread thread_;
};

class ConductorImpl final : public Conductor {
  public:
    ConductorImpl(runtime::Reactor& reactor, ConductorOptions options,
                  std::unique_ptr<meta::Engine> engine, std::unique_ptr<net::HttpServer> http)
        : reactor_(reactor),
          options_(std::move(options)),
          engine_(std::move(engine)),
          core_(reactor, *engine_, stores_, options_.core),
          rpc_handler_(core_),
          gate_(reactor, max_http_calls, http_call_timeout_s),
          http_(std::move(http)) {
        add_rest_routes(*http_, gate_, core_);
    }

    Task<Status> start() override {
        PF_CO_TRY(co_await core_.start());
        auto server = net::Server::listen(options_.rpc, rpc_handler_);
        if (!server) {
            co_return fail(server.error().code,
                           fmt::format("RPC port: {}; choose another", server.error().message));
        }
        rpc_ = std::move(*server);
        options_.rpc = rpc_->local();
        http_->start();
        log_info("conductor serves HTTP on {} and RPC on {}", http_->local().text(),
                 options_.rpc.text());
        co_return Status{};
    }

    // New work is refused first, then what is under way ends, then what it used goes away.
    Task<void> stop() override {
        gate_.close();
        co_await core_.stop();
        co_await gate_.idle();
        if (rpc_) co_await rpc_->stop();
        {
            BlockingStop stopping(reactor_, *http_);
            co_await stopping.wait();
        }
        co_await engine_->close();
    }

    const runtime::Address& http_address() const override { return http_->local(); }
    const runtime::Address& rpc_address() const override { return options_.rpc; }
    Core& core() override { return core_; }

  private:
    runtime::Reactor& reactor_;
    ConductorOptions options_;
    std::unique_ptr<meta::Engine> engine_;
    NetStoreLink stores_;
    Core core_;
    RpcServer rpc_handler_;
    net::ReactorGate gate_;
    std::unique_ptr<net::HttpServer> http_;
    std::unique_ptr<net::Server> rpc_;
};

uint64_t wall_clock_ms() {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

}  // namespace

Result<std::unique_ptr<Conductor>> Conductor::create(runtime::Reactor& reactor,
                                                     ConductorOptions options) {
    std::error_code error;
    std::filesystem::create_directories(options.data_dir, error);
    if (error) {
        return fail(Errc::io_error, fmt::format("data folder '{}' cannot be made: {}",
                                                options.data_dir, error.message()));
    }
    PF_TRY_ASSIGN(auto engine,
                  meta::SqliteEngine::open(reactor, options.data_dir + "/metadata.db"));
    net::HttpOptions http;
    http.listen = options.http;
    http.insecure_listen = options.insecure_listen;
    http.max_body_bytes = options.max_body_bytes;
    http.threads = options.http_threads;
    PF_TRY_ASSIGN(auto server, net::HttpServer::create(std::move(http)));
    // Shown to people; nothing is decided by it.
    options.core.wall_clock_ms = &wall_clock_ms;
    return std::make_unique<ConductorImpl>(reactor, std::move(options), std::move(engine),
                                           std::move(server));
}

}  // namespace pf::conductor
