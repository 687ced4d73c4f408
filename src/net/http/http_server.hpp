// A small HTTP server for the control plane, metrics and health of every daemon. It runs outside
// the runtime seam, on threads of its own; ReactorGate is the way from them to a reactor.
//
// Bounds: body size (packed bodies are refused), bytes of a whole request, threads, connections
// waiting for a thread, time of a whole request and of a whole answer.
// Without authentication it listens on loopback only, unless that is said to be meant.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/network.hpp"

namespace pf::net {

struct HttpRequest {
    std::string method;
    std::string path;
    std::map<std::string, std::string> parameters;  // {name} of the route
    std::map<std::string, std::string> query;       // none twice: that is refused
    std::string body;
};

struct HttpResponse {
    int status = 200;
    std::string content_type = "application/json";
    std::string body;
};

// {"code", "message"} as application/problem+json.
[[nodiscard]] HttpResponse http_error(int status, std::string_view code, std::string_view message);
// The same for an Error of ours, with the status that fits its code.
[[nodiscard]] HttpResponse http_error(const Error& error);

struct HttpOptions {
    runtime::Address listen;
    bool insecure_listen = false;
    // Many, and little patience: whoever sends half a request, or one byte by byte, holds a thread
    // until the time is up.
    unsigned threads = 32;
    size_t max_waiting = 64;  // connections that wait for a thread
    size_t max_body_bytes = size_t{1} << 20;
    unsigned read_timeout_s = 1;     // without a byte
    unsigned request_timeout_s = 3;  // head and body
    unsigned write_timeout_s = 5;
    unsigned answer_timeout_s = 30;
};

class HttpServer {
  public:
    // Runs on a thread of the server; several at a time.
    using Handler = std::function<HttpResponse(const HttpRequest&)>;
    struct Route {
        std::string method;
        std::string pattern;  // "/v1/volumes/{name}"
        Handler handler;
    };

    // Binds. Errors: invalid_argument (address not allowed), busy (address in use).
    [[nodiscard]] static Result<std::unique_ptr<HttpServer>> create(HttpOptions options);
    virtual ~HttpServer() = default;

    // Before start().
    virtual void route(std::string method, std::string pattern, Handler handler) = 0;
    virtual void start() = 0;
    // Blocks until every thread has ended; call it where blocking is allowed.
    virtual void stop() = 0;
    // With the port that was bound when 0 was asked for.
    [[nodiscard]] virtual const runtime::Address& local() const = 0;
    [[nodiscard]] virtual const std::vector<Route>& routes() const = 0;
};

}  // namespace pf::net
