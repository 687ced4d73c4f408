#include "conductor/rest.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "conductor/rest_json.hpp"
#include "net/http/metrics_text.hpp"

namespace pf::conductor {

using net::HttpRequest;
using net::HttpResponse;
using nlohmann::json;
using runtime::Task;

namespace {

HttpResponse ok(const json& body, int status = 200) {
    return {status, "application/json", to_text(body)};
}

template <class T>
HttpResponse answer(const Result<T>& result, int status = 200) {
    if (!result) return net::http_error(result.error());
    return ok(to_json(*result), status);
}

// The coroutines take everything by value: they outlive the handler that made them.

Task<HttpResponse> create_volume(Core& core, v1::CreateVolumeRequest request) {
    const auto created = co_await core.create_volume(std::move(request));
    co_return answer(created, 201);
}

Task<HttpResponse> change_volume(Core& core, std::string name, VolumeChange change) {
    if (change.name) {
        v1::RenameVolumeRequest rename;
        rename.set_name(name);
        rename.set_new_name(*change.name);
        const auto renamed = co_await core.rename_volume(std::move(rename));
        co_return answer(renamed);
    }
    v1::ResizeVolumeRequest resize;
    resize.set_name(name);
    resize.set_size_bytes(*change.size_bytes);
    const auto resized = co_await core.resize_volume(std::move(resize));
    co_return answer(resized);
}

Task<HttpResponse> delete_volume(Core& core, std::string name, bool force) {
    v1::DeleteVolumeRequest request;
    request.set_name(name);
    request.set_force(force);
    const auto done = co_await core.delete_volume(std::move(request));
    if (!done) co_return net::http_error(done.error());
    // Accepted: gone for everyone, its space is freed when its store is back.
    HttpResponse response = ok({{"space_freed", *done}}, *done ? 200 : 202);
    co_return response;
}

Task<HttpResponse> add_tray(Core& core, NewTray tray) {
    const auto added = co_await core.add_tray(tray.store_id, std::move(tray.request));
    co_return answer(added, 201);
}

Task<HttpResponse> remove_tray(Core& core, std::string uuid, bool force) {
    v1::RemoveTrayRequest request;
    request.set_tray_uuid(uuid);
    request.set_force(force);
    const Status removed = co_await core.remove_tray(std::move(request));
    if (!removed) co_return net::http_error(removed.error());
    co_return HttpResponse{204, "application/json", ""};
}

HttpResponse accepted(const Result<uint32_t>& shards) {
    if (!shards) return net::http_error(shards.error());
    return ok({{"accepted_shards", *shards}});
}

Task<HttpResponse> accept_volume_loss(Core& core, std::string name, bool force) {
    const auto shards = co_await core.accept_volume_loss(std::move(name), force);
    co_return accepted(shards);
}

Task<HttpResponse> accept_tray_loss(Core& core, std::string uuid, bool force) {
    const auto shards = co_await core.accept_tray_loss(std::move(uuid), force);
    co_return accepted(shards);
}

// Something that needs no waiting.
template <class Function>
Task<HttpResponse> at_once(Function function) {
    co_return function();
}

const std::string* find(const std::map<std::string, std::string>& map, const char* key) {
    const auto found = map.find(key);
    return found == map.end() ? nullptr : &found->second;
}

Status check_query(const HttpRequest& request, const std::vector<std::string>& known) {
    for (const auto& [name, value] : request.query) {
        if (std::ranges::find(known, name) != known.end()) continue;
        return fail(
            Errc::invalid_argument,
            fmt::format("unknown parameter '{}': known here: {}", name,
                        known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", "))));
    }
    return {};
}

class Routes {
  public:
    Routes(net::HttpServer& server, net::ReactorGate& gate, Core& core)
        : server_(server), gate_(gate), core_(core) {}

    void add_volumes() {
        route("GET", "/v1/volumes?after&limit",
              [this_ = *this](const HttpRequest& request) { return this_.list_volumes(request); });
        route("POST", "/v1/volumes", [this_ = *this](const HttpRequest& request) {
            auto parsed = parse_create_volume(request.body);
            if (!parsed) return net::http_error(parsed.error());
            return this_.gate_.call([&core = this_.core_, parsed = std::move(*parsed)] {
                return create_volume(core, parsed);
            });
        });
        route("GET", "/v1/volumes/{name}", [this_ = *this](const HttpRequest& request) {
            const std::string name = request.parameters.at("name");
            return this_.read(
                [&core = this_.core_, name] { return answer(core.show_volume(name)); });
        });
        route("PATCH", "/v1/volumes/{name}", [this_ = *this](const HttpRequest& request) {
            auto parsed = parse_volume_change(request.body);
            if (!parsed) return net::http_error(parsed.error());
            const std::string name = request.parameters.at("name");
            return this_.gate_.call([&core = this_.core_, name, parsed = std::move(*parsed)] {
                return change_volume(core, name, parsed);
            });
        });
        route("DELETE", "/v1/volumes/{name}?force", [this_ = *this](const HttpRequest& request) {
            const auto force = parse_flag("force", find(request.query, "force"));
            if (!force) return net::http_error(force.error());
            const std::string name = request.parameters.at("name");
            return this_.gate_.call([&core = this_.core_, name, force = *force] {
                return delete_volume(core, name, force);
            });
        });
        route("POST", "/v1/volumes/{name}/accept-loss?force",
              [this_ = *this](const HttpRequest& request) {
                  const auto force = parse_flag("force", find(request.query, "force"));
                  if (!force) return net::http_error(force.error());
                  const std::string name = request.parameters.at("name");
                  return this_.gate_.call([&core = this_.core_, name, force = *force] {
                      return accept_volume_loss(core, name, force);
                  });
              });
    }

    void add_stores() {
        route("GET", "/v1/stores", [this_ = *this](const HttpRequest&) {
            return this_.read([&core = this_.core_] {
                json stores = json::array();
                for (const auto& store : core.list_stores()) stores.push_back(to_json(store));
                return ok({{"stores", std::move(stores)}});
            });
        });
        route("GET", "/v1/stores/{id}", [this_ = *this](const HttpRequest& request) {
            const auto id = parse_number("id", request.parameters.at("id"));
            if (!id) return net::http_error(id.error());
            return this_.read(
                [&core = this_.core_, id = *id] { return answer(core.show_store(id)); });
        });
        route("GET", "/v1/trays", [this_ = *this](const HttpRequest&) {
            return this_.read([&core = this_.core_] {
                json trays = json::array();
                for (const auto& tray : core.list_trays()) trays.push_back(to_json(tray));
                return ok({{"trays", std::move(trays)}});
            });
        });
        route("POST", "/v1/trays", [this_ = *this](const HttpRequest& request) {
            auto parsed = parse_new_tray(request.body);
            if (!parsed) return net::http_error(parsed.error());
            return this_.gate_.call([&core = this_.core_, parsed = std::move(*parsed)] {
                return add_tray(core, parsed);
            });
        });
        route("DELETE", "/v1/trays/{uuid}?force", [this_ = *this](const HttpRequest& request) {
            const auto force = parse_flag("force", find(request.query, "force"));
            if (!force) return net::http_error(force.error());
            const std::string uuid = request.parameters.at("uuid");
            return this_.gate_.call([&core = this_.core_, uuid, force = *force] {
                return remove_tray(core, uuid, force);
            });
        });
        route("POST", "/v1/trays/{uuid}/accept-loss?force",
              [this_ = *this](const HttpRequest& request) {
                  const auto force = parse_flag("force", find(request.query, "force"));
                  if (!force) return net::http_error(force.error());
                  const std::string uuid = request.parameters.at("uuid");
                  return this_.gate_.call([&core = this_.core_, uuid, force = *force] {
                      return accept_tray_loss(core, uuid, force);
                  });
              });
    }

    void add_cluster() {
        route("GET", "/v1/status", [this_ = *this](const HttpRequest&) {
            return this_.read([&core = this_.core_] { return ok(to_json(core.status())); });
        });
        route("GET", "/v1/top", [this_ = *this](const HttpRequest&) {
            return this_.read([&core = this_.core_] {
                json volumes = json::array();
                for (const auto& rate : core.rates()) volumes.push_back(to_json(rate));
                return ok({{"volumes", std::move(volumes)}});
            });
        });
        route("GET", "/v1/version", [](const HttpRequest&) {
            return ok({{"version", PUREFLASH_VERSION}, {"api", "v1"}});
        });
        route("GET", "/metrics", [this_ = *this](const HttpRequest&) {
            return this_.read([&core = this_.core_] {
                return HttpResponse{200, net::metrics_content_type,
                                    net::metrics_text(collect_metrics(core))};
            });
        });
        route("GET", "/healthz", [this_ = *this](const HttpRequest&) {
            return this_.read([&core = this_.core_] {
                if (!core.serving()) return HttpResponse{503, "text/plain", "not serving\n"};
                return HttpResponse{200, "text/plain", "ok\n"};
            });
        });
    }

  private:
    // "/v1/volumes?after&limit": the path, and the parameters that the query may have.
    void route(std::string_view method, std::string_view target, net::HttpServer::Handler handler) {
        const size_t path_end = std::min(target.find('?'), target.size());
        const std::string path(target.substr(0, path_end));
        std::vector<std::string> known;
        for (size_t at = path_end; at < target.size();) {
            const size_t end = std::min(target.find('&', at + 1), target.size());
            known.emplace_back(target.substr(at + 1, end - at - 1));
            at = end;
        }
        const auto timed = [&times = core_.rest_times(), op = fmt::format("{} {}", method, path),
                            known = std::move(known),
                            handler = std::move(handler)](const HttpRequest& request) {
            const auto begin = std::chrono::steady_clock::now();
            const Status good = check_query(request, known);
            HttpResponse response = good ? handler(request) : net::http_error(good.error());
            const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - begin;
            times.record(op, static_cast<uint64_t>(took.count()));
            return response;
        };
        server_.route(std::string(method), path, timed);
    }

    template <class Function>
    HttpResponse read(Function function) const {
        return gate_.call([function = std::move(function)] { return at_once(function); });
    }

    HttpResponse list_volumes(const HttpRequest& request) const {
        const std::string* after = find(request.query, "after");
        const std::string* limit = find(request.query, "limit");
        const auto number = limit == nullptr ? Result<uint32_t>(0u) : parse_number("limit", *limit);
        if (!number) return net::http_error(number.error());
        return read([&core = core_, after = after == nullptr ? "" : *after, number = *number] {
            const auto listed = core.list_volumes(after, number);
            json volumes = json::array();
            for (const auto& volume : listed.volumes()) volumes.push_back(to_json(volume));
            return ok({{"volumes", std::move(volumes)}, {"more", listed.more()}});
        });
    }

    net::HttpServer& server_;
    net::ReactorGate& gate_;
    Core& core_;
};

}  // namespace

void add_rest_routes(net::HttpServer& server, net::ReactorGate& gate, Core& core) {
    Routes routes(server, gate, core);
    routes.add_volumes();
    routes.add_stores();
    routes.add_cluster();
}

MetricsPage collect_metrics(const Core& core) {
    MetricsPage page;
    const ClusterStatus status = core.status();
    const CoreCounters& counters = core.counters();
    const auto gauge = [&](const char* name, const char* help, auto value) {
        page.gauge(name, help, {}, static_cast<double>(value));
    };
    const auto counter = [&](const char* name, const char* help, auto value) {
        page.counter(name, help, {}, static_cast<double>(value));
    };
    gauge("pureflash_volumes", "Volumes.", status.volumes);
    gauge("pureflash_volume_size_bytes", "Sum of the volumes' sizes.", status.volume_bytes);
    gauge("pureflash_stores", "Stores known.", status.stores);
    gauge("pureflash_stores_online", "Stores that send heartbeats.", status.stores_online);
    gauge("pureflash_trays", "Trays known.", status.trays);
    gauge("pureflash_trays_ok", "Trays without anything wrong.", status.trays_ok);
    gauge("pureflash_capacity_bytes", "Capacity of the serving trays.", status.capacity_bytes);
    gauge("pureflash_free_bytes", "Free space of the serving trays.", status.free_bytes);
    gauge("pureflash_open_handles", "Volumes opened by clients now.", status.open_handles);
    gauge("pureflash_volumes_with_losses",
          "Volumes with shards that may have lost writes and answer no I/O.",
          status.volumes_with_losses);
    gauge("pureflash_tasks", "Deletions and undoings that go on.", status.tasks);
    counter("pureflash_volumes_created_total", "Volumes created.", counters.volumes_created);
    counter("pureflash_volumes_deleted_total", "Volumes deleted.", counters.volumes_deleted);
    counter("pureflash_volumes_opened_total", "Times a volume was opened.",
            counters.volumes_opened);
    counter("pureflash_store_registrations_total", "Store registrations.", counters.registrations);
    counter("pureflash_store_heartbeats_total", "Heartbeats received.", counters.heartbeats);
    counter("pureflash_store_calls_total", "Calls to stores.", counters.store_calls);
    counter("pureflash_store_call_errors_total", "Calls to stores that failed.",
            counters.store_call_errors);
    core.rest_times().add_to(page, "pureflash_conductor_rest_seconds",
                             "From the parsed REST request to its answer.");
    core.rpc_times().add_to(page, "pureflash_conductor_rpc_seconds",
                            "From receipt to answer of a call by a client or store.");
    return page;
}

}  // namespace pf::conductor
