#include "tools/store_http.hpp"

#include "net/http/metrics_text.hpp"

namespace pf::tools {

using net::HttpRequest;
using net::HttpResponse;
using runtime::Task;

namespace {

constexpr size_t max_calls = 16;
constexpr unsigned call_timeout_s = 5;

// Both run on the store's home reactor.
Task<HttpResponse> metrics_page(const pfs::Store& store) {
    Task<MetricsPage> gathering = store.metrics();
    const MetricsPage page = co_await gathering;
    HttpResponse response;
    response.content_type = net::metrics_content_type;
    response.body = net::metrics_text(page);
    co_return response;
}

Task<HttpResponse> health_page(const pfs::Store& store) {
    Task<std::string> asking = store.problem();
    const std::string problem = co_await asking;
    if (!problem.empty()) co_return HttpResponse{503, "text/plain", problem + "\n"};
    co_return HttpResponse{200, "text/plain", "ok\n"};
}

}  // namespace

StoreHttp::StoreHttp(StoreProcess& process)
    : process_(process), gate_(process.home(), max_calls, call_timeout_s) {}

Result<std::unique_ptr<StoreHttp>> StoreHttp::start(const runtime::Address& address,
                                                    bool insecure_listen, StoreProcess& process) {
    std::unique_ptr<StoreHttp> http(new StoreHttp(process));
    net::HttpOptions options;
    options.listen = address;
    options.insecure_listen = insecure_listen;
    PF_TRY_ASSIGN(http->server_, net::HttpServer::create(options));
    net::ReactorGate& gate = http->gate_;
    const pfs::Store& store = process.store();
    http->server_->route("GET", "/metrics", [&gate, &store](const HttpRequest&) {
        return gate.call([&store] { return metrics_page(store); });
    });
    http->server_->route("GET", "/healthz", [&gate, &store](const HttpRequest&) {
        return gate.call([&store] { return health_page(store); });
    });
    http->server_->start();
    return http;
}

StoreHttp::~StoreHttp() {
    if (server_) server_->stop();
    process_.on_home([this]() -> Task<void> {
        gate_.close();
        return gate_.idle();
    });
}

}  // namespace pf::tools
