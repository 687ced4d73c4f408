// The conductor as a whole: metadata engine, core, RPC port and HTTP port. The daemon and the
// all-in-one process embed it.
//
// Threads: create(), start(), stop() and the destructor run on the reactor's thread (or, before the
// reactor runs, on the one that prepares it). stop() before destroying.
#pragma once

#include <memory>
#include <string>

#include "conductor/core.hpp"
#include "net/http/http_server.hpp"

namespace pf::conductor {

struct ConductorOptions {
    std::string data_dir;   // made if missing; holds metadata.db
    runtime::Address http;  // port 0: any free one
    runtime::Address rpc;   // clients expect it at the HTTP port + conductor_rpc_from_http
    bool insecure_listen = false;
    size_t max_body_bytes = size_t{1} << 20;
    unsigned http_threads = net::HttpOptions{}.threads;
    CoreOptions core;
};

class Conductor {
  public:
    // Opens the metadata (blocking) and binds the HTTP port. Errors: busy (another process uses the
    // folder or the port), invalid_argument (an address that is not allowed).
    [[nodiscard]] static Result<std::unique_ptr<Conductor>> create(runtime::Reactor& reactor,
                                                                   ConductorOptions options);
    virtual ~Conductor() = default;

    // Serves when it returns.
    [[nodiscard]] virtual runtime::Task<Status> start() = 0;
    [[nodiscard]] virtual runtime::Task<void> stop() = 0;

    [[nodiscard]] virtual const runtime::Address& http_address() const = 0;
    [[nodiscard]] virtual const runtime::Address& rpc_address() const = 0;
    [[nodiscard]] virtual Core& core() = 0;
};

}  // namespace pf::conductor
