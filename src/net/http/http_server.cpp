#include "net/http/http_server.hpp"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/assert.hpp"
#include "base/log.hpp"
#include "net/http/timed_stream.hpp"

namespace pf::net {

namespace {

constexpr size_t max_path_bytes = 1024;
constexpr size_t max_head_bytes = size_t{64} << 10;

// Threads with a bounded queue: when it is full the accepting thread waits, and the kernel's
// backlog bounds the rest.
class BoundedPool : public httplib::TaskQueue {
  public:
    BoundedPool(unsigned threads, size_t max_waiting) : max_waiting_(max_waiting) {
        for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
    }
    void enqueue(std::function<void()> job) override {
        std::unique_lock lock(mutex_);
        room_.wait(lock, [this] { return jobs_.size() < max_waiting_ || stopping_; });
        jobs_.push_back(std::move(job));
        work_.notify_one();
    }
    void shutdown() override {
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        work_.notify_all();
        room_.notify_all();
        for (auto& thread : threads_) thread.join();
        threads_.clear();
    }

  private:
    void run() {
        for (;;) {
            std::function<void()> job;
            {
                std::unique_lock lock(mutex_);
                work_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
                if (jobs_.empty()) return;
                job = std::move(jobs_.front());
                jobs_.pop_front();
            }
            room_.notify_one();
            job();
        }
    }

    size_t max_waiting_;
    std::mutex mutex_;
    std::condition_variable work_;
    std::condition_variable room_;
    std::deque<std::function<void()>> jobs_;
    bool stopping_ = false;
    std::vector<std::thread> threads_;
};

// A request that states neither length nor encoding has no body (RFC 9112, 6.3). httplib would read
// until the client closes, so it is told; the request is const for handlers only.
void no_length_is_no_body(const httplib::Request& request) {
    if (request.has_header("Content-Length") || request.has_header("Transfer-Encoding")) return;
    const_cast<httplib::Request&>(request).headers.emplace("Content-Length", "0");
}

// Matching recurses once for each character of the path, and a packed body has no bound of its own:
// httplib would unpack 1 MiB to 1 GiB.
int refuse_before_body(const httplib::Request& request) {
    if (request.path.size() > max_path_bytes) return 414;
    const bool packed = request.has_header("Content-Encoding");
    return packed ? 415 : 0;
}

HttpResponse own_refusal(int status) {
    if (status == 413) return http_error(status, "resource_exhausted", "the request is too large");
    if (status == 415)
        return http_error(status, "unsupported", "a packed body: send it without Content-Encoding");
    return http_error(status, "protocol", "the request is not valid HTTP/1.1");
}

bool is_loopback(const std::string& host) {
    return host == "localhost" || host == "::1" || host.starts_with("127.");
}

std::vector<std::string> split_path(std::string_view path) {
    std::vector<std::string> out;
    size_t begin = 1;
    while (begin <= path.size()) {
        const size_t slash = std::min(path.find('/', begin), path.size());
        out.emplace_back(path.substr(begin, slash - begin));
        begin = slash + 1;
    }
    return out;
}

std::string decoded(const std::string& text) {
    return httplib::detail::decode_url(text, true);
}

// Those of the target alone: httplib's own list has those of a form in the body too, and not those
// that are given twice alike.
Status take_query(const std::string& target, std::map<std::string, std::string>& query) {
    const size_t path_end = target.find('?');
    if (path_end == std::string::npos) return {};
    for (size_t at = path_end + 1; at < target.size();) {
        const size_t end = std::min(target.find('&', at), target.size());
        const size_t name_end = std::min(target.find('=', at), end);
        const size_t value_begin = std::min(name_end + 1, end);
        const std::string name = decoded(target.substr(at, name_end - at));
        const std::string value = decoded(target.substr(value_begin, end - value_begin));
        if (end > at && !query.emplace(name, value).second)
            return fail(Errc::invalid_argument, fmt::format("parameter '{}' is given twice", name));
        at = end + 1;
    }
    return {};
}

// Fills the parameters if the path fits the pattern.
bool match(const std::string& pattern, const std::vector<std::string>& path,
           std::map<std::string, std::string>& parameters) {
    const auto parts = split_path(pattern);
    if (parts.size() != path.size()) return false;
    std::map<std::string, std::string> found;
    for (size_t i = 0; i < parts.size(); ++i) {
        const bool parameter = parts[i].starts_with('{') && parts[i].ends_with('}');
        if (parameter && !path[i].empty()) {
            found.emplace(parts[i].substr(1, parts[i].size() - 2), path[i]);
        } else if (parts[i] != path[i]) {
            return false;
        }
    }
    parameters = std::move(found);
    return true;
}

// httplib with our limits of time.
class TimedServer final : public httplib::Server {
  public:
    explicit TimedServer(const HttpOptions& options)
        : limits_{.idle = std::chrono::seconds(options.read_timeout_s),
                  .request = std::chrono::seconds(options.request_timeout_s),
                  .stalled = std::chrono::seconds(options.write_timeout_s),
                  .answer = std::chrono::seconds(options.answer_timeout_s),
                  .request_bytes = max_head_bytes + 2 * options.max_body_bytes} {}

  private:
    bool process_and_close_socket(socket_t fd) override {
        TimedStream stream(fd, limits_);
        bool good = true;
        for (size_t left = keep_alive_max_count_;
             left > 0 && svr_sock_ != INVALID_SOCKET && stream.begin_request(keep_alive); --left) {
            bool closed = false;
            good = process_request(stream, left == 1, closed, nullptr);
            if (!good || closed || stream.broken()) break;
        }
        ::shutdown(fd, SHUT_RDWR);
        ::close(fd);
        return good;
    }

    static constexpr std::chrono::milliseconds keep_alive{1000};
    StreamLimits limits_;
};

class Server final : public HttpServer {
  public:
    explicit Server(HttpOptions options) : options_(std::move(options)), server_(options_) {
        server_.new_task_queue = [this] {
            return new BoundedPool(options_.threads, options_.max_waiting);
        };
        server_.set_payload_max_length(options_.max_body_bytes);
        server_.set_tcp_nodelay(true);
        // Without address reuse of several sockets, so that a second server is told.
        server_.set_socket_options([this](int fd) {
            const int on = 1;
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
            listen_fd_ = fd;
        });
        const auto handler = [this](const httplib::Request& from, httplib::Response& to) {
            answer(from, to);
        };
        const httplib::Server::Handler any = handler;
        const std::string all = "[\\s\\S]*";
        server_.Get(all, any).Post(all, any).Put(all, any).Patch(all, any);
        server_.Delete(all, any).Options(all, any);
        server_.set_pre_routing_handler([](const httplib::Request& from, httplib::Response& to) {
            no_length_is_no_body(from);
            const int refused = refuse_before_body(from);
            if (refused == 0) return httplib::Server::HandlerResponse::Unhandled;
            to.status = refused;
            return httplib::Server::HandlerResponse::Handled;
        });
        // What httplib refuses by itself gets our form of error too.
        server_.set_error_handler([](const httplib::Request&, httplib::Response& to) {
            if (!to.body.empty()) return;
            const auto error = own_refusal(to.status);
            to.set_content(error.body, error.content_type.c_str());
        });
    }
    ~Server() override { stop(); }

    Status bind() {
        PF_TRY(bind_port());
        // httplib's own backlog of 5 makes the kernel drop connections of a burst, whose clients
        // try again after seconds.
        if (::listen(listen_fd_, static_cast<int>(options_.max_waiting)) == 0) return {};
        return fail(Errc::io_error,
                    fmt::format("cannot listen on {} for HTTP", options_.listen.text()));
    }

    void route(std::string method, std::string pattern, Handler handler) override {
        PF_ASSERT(!thread_.joinable());
        routes_.push_back({std::move(method), std::move(pattern), std::move(handler)});
    }
    void start() override {
        thread_ = std::thread([this] { server_.listen_after_bind(); });
        // listen_after_bind cannot fail before it runs; the bound guards against one that does.
        for (int i = 0; i < 1000 && !server_.is_running(); ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }
    void stop() override {
        if (!thread_.joinable()) return;
        server_.stop();
        thread_.join();
    }
    const runtime::Address& local() const override { return local_; }
    const std::vector<Route>& routes() const override { return routes_; }

  private:
    Status bind_port() {
        const auto& address = options_.listen;
        local_ = address;
        if (address.port == 0) {
            const int port = server_.bind_to_any_port(address.host.c_str());
            if (port > 0) {
                local_.port = static_cast<uint16_t>(port);
                return {};
            }
        } else if (server_.bind_to_port(address.host.c_str(), address.port)) {
            return {};
        }
        return fail(Errc::busy, fmt::format("cannot listen on {} for HTTP: the address is not of "
                                            "this host, or the port is taken; choose another",
                                            address.text()));
    }

    void answer(const httplib::Request& from, httplib::Response& to) {
        HttpRequest request;
        request.method = from.method == "HEAD" ? "GET" : from.method;
        request.path = from.path;
        request.body = from.body;
        const Status query = take_query(from.target, request.query);
        // Of a body without a stated length httplib checks none.
        const HttpResponse response = request.body.size() > options_.max_body_bytes
                                          ? own_refusal(413)
                                      : query ? dispatch(request, to)
                                              : http_error(query.error());
        to.status = response.status;
        to.set_content(response.body, response.content_type.c_str());
    }

    HttpResponse dispatch(HttpRequest& request, httplib::Response& to) {
        const auto path = split_path(request.path);
        std::string allowed;
        for (const auto& route : routes_) {
            if (!match(route.pattern, path, request.parameters)) continue;
            if (route.method == request.method) return route.handler(request);
            allowed += (allowed.empty() ? "" : ", ") + route.method;
        }
        if (allowed.empty()) {
            return http_error(404, "not_found", fmt::format("no such path: {}", request.path));
        }
        to.set_header("Allow", allowed);
        return http_error(
            405, "unsupported",
            fmt::format("{} is not for {}: use {}", request.method, request.path, allowed));
    }

    HttpOptions options_;
    TimedServer server_;
    runtime::Address local_;
    int listen_fd_ = -1;  // httplib's
    std::vector<Route> routes_;
    std::thread thread_;
};

struct Mapping {
    Errc code;
    int status;
    std::string_view name;
};
constexpr Mapping mappings[] = {
    {Errc::invalid_argument, 400, "invalid_argument"},
    {Errc::not_found, 404, "not_found"},
    {Errc::already_exists, 409, "already_exists"},
    {Errc::out_of_range, 400, "out_of_range"},
    {Errc::no_space, 507, "no_space"},
    {Errc::io_error, 500, "io_error"},
    {Errc::corrupt, 500, "corrupt"},
    {Errc::data_lost, 500, "data_lost"},
    {Errc::busy, 409, "busy"},
    {Errc::timed_out, 504, "timed_out"},
    {Errc::cancelled, 503, "cancelled"},
    {Errc::disconnected, 503, "disconnected"},
    {Errc::protocol, 400, "protocol"},
    {Errc::unsupported, 422, "unsupported"},
    {Errc::unsupported_version, 422, "unsupported_version"},
    {Errc::resource_exhausted, 429, "resource_exhausted"},
    {Errc::conflict, 409, "conflict"},
    {Errc::unavailable, 503, "unavailable"},
};

}  // namespace

HttpResponse http_error(int status, std::string_view code, std::string_view message) {
    nlohmann::json json;
    json["code"] = code;
    json["message"] = message;
    // Messages may quote what a peer sent: bytes that are no UTF-8 are replaced.
    return {status, "application/problem+json",
            json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)};
}

HttpResponse http_error(const Error& error) {
    const std::string message =
        error.message.empty() ? std::string(describe(error.code)) : error.message;
    for (const auto& mapping : mappings) {
        if (mapping.code == error.code) return http_error(mapping.status, mapping.name, message);
    }
    return http_error(500, "internal", error.text());
}

Result<std::unique_ptr<HttpServer>> HttpServer::create(HttpOptions options) {
    if (!options.insecure_listen && !is_loopback(options.listen.host)) {
        return fail(
            Errc::invalid_argument,
            fmt::format("HTTP address {} is not loopback, and there is no authentication "
                        "yet: use 127.0.0.1, or --insecure-listen if the network is trusted",
                        options.listen.text()));
    }
    auto server = std::make_unique<Server>(std::move(options));
    PF_TRY(server->bind());
    return server;
}

}  // namespace pf::net
