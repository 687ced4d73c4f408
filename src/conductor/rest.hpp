// REST /v1 of the conductor (docs/reference/openapi.yaml) with /metrics and /healthz. Handlers run on
// threads of the HTTP server, parse there, and do the work on the reactor through the gate.
#pragma once

#include "base/metrics.hpp"
#include "conductor/core.hpp"
#include "net/http/reactor_gate.hpp"

namespace pf::conductor {

// Adds the routes; core and gate outlive the server's threads.
void add_rest_routes(net::HttpServer& server, net::ReactorGate& gate, Core& core);

[[nodiscard]] MetricsPage collect_metrics(const Core& core);

}  // namespace pf::conductor
