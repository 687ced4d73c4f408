// Metrics and health of a store over HTTP.
#pragma once

#include <memory>

#include "net/http/http_server.hpp"
#include "net/http/reactor_gate.hpp"
#include "tools/store_process.hpp"

namespace pf::tools {

class StoreHttp {
  public:
    // GET /metrics (Prometheus text) and GET /healthz (200, or 503 with the reason).
    [[nodiscard]] static Result<std::unique_ptr<StoreHttp>> start(const runtime::Address& address,
                                                                  bool insecure_listen,
                                                                  StoreProcess& process);
    StoreHttp(const StoreHttp&) = delete;
    StoreHttp& operator=(const StoreHttp&) = delete;
    // Ends before the store stops.
    ~StoreHttp();

  private:
    explicit StoreHttp(StoreProcess& process);
    StoreProcess& process_;
    net::ReactorGate gate_;
    std::unique_ptr<net::HttpServer> server_;
};

}  // namespace pf::tools
