#include "tools/pfcli/api.hpp"

#include <fmt/format.h>
#include <httplib.h>

#include <chrono>
#include <thread>

#include "runtime/network.hpp"

namespace pf::tools {

using nlohmann::json;

namespace {

constexpr std::chrono::milliseconds retry_pause{100};
constexpr size_t max_answer_bytes = size_t{64} << 20;
constexpr time_t connect_timeout_s = 5;
constexpr time_t answer_timeout_s = 200;  // longer than the conductor's own limit

Errc code_of(int status) {
    switch (status) {
        case 404:
            return Errc::not_found;
        case 409:
            return Errc::busy;
        case 503:
            return Errc::unavailable;
        case 504:  // it may still be done: unlike 503, not to be repeated blindly
            return Errc::timed_out;
        default:
            return Errc::invalid_argument;
    }
}

}  // namespace

Result<Api> Api::create(const std::string& conductor) {
    const auto address = runtime::Address::parse(conductor);
    if (!address || address->port == 0 || address->host.starts_with('/')) {
        return fail(Errc::invalid_argument,
                    fmt::format("conductor '{}' is not HOST:PORT: give --conductor or PF_CONDUCTOR",
                                conductor));
    }
    return Api(address->host, address->port);
}

std::string Api::escape(std::string_view text) {
    std::string out;
    for (const char c : text) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == '~';
        if (plain) {
            out += c;
        } else {
            out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
        }
    }
    return out;
}

Result<json> Api::send(const char* method, const std::string& path, const std::string& body) const {
    httplib::Client client(host_, port_);
    client.set_connection_timeout(connect_timeout_s);
    client.set_read_timeout(answer_timeout_s);
    httplib::Request request;
    request.method = method;
    request.path = path;
    request.body = body;
    if (!body.empty()) request.headers.emplace("Content-Type", "application/json");
    std::string text;
    request.content_receiver = [&text](const char* data, size_t bytes, uint64_t, uint64_t) {
        if (text.size() + bytes > max_answer_bytes) return false;
        text.append(data, bytes);
        return true;
    };
    // The server may be starting. A connection that was refused has asked for nothing yet.
    const auto patient_until = std::chrono::steady_clock::now() + patience_;
    httplib::Result result = client.send(request);
    while (!result && result.error() == httplib::Error::Connection &&
           std::chrono::steady_clock::now() < patient_until) {
        std::this_thread::sleep_for(retry_pause);
        result = client.send(request);
    }
    if (!result && result.error() == httplib::Error::Canceled) return not_a_conductor();
    if (!result) {
        return fail(Errc::disconnected,
                    fmt::format("no answer from the conductor at {}:{} ({}): is it running there? "
                                "give another address with --conductor or PF_CONDUCTOR",
                                host_, port_, httplib::to_string(result.error())));
    }
    json answer = result->status == 204 ? json::object()  // done, nothing to say
                                        : json::parse(text, nullptr, false);
    if (result->status >= 200 && result->status < 300) {
        if (answer.is_object()) return answer;
        return not_a_conductor();
    }
    if (answer.is_object() && answer.contains("message") && answer["message"].is_string()) {
        return fail(code_of(result->status), answer["message"].get<std::string>());
    }
    return fail(Errc::protocol,
                fmt::format("{}:{} answers with HTTP status {}: is it a conductor's "
                            "HTTP port?",
                            host_, port_, result->status));
}

std::unexpected<Error> Api::not_a_conductor() const {
    return fail(Errc::protocol,
                fmt::format("{}:{} answers, but not as a PureFlash conductor does: give the HTTP "
                            "address of one with --conductor or PF_CONDUCTOR",
                            host_, port_));
}

Result<json> Api::get(const std::string& path) const {
    return send("GET", path, "");
}
Result<json> Api::post(const std::string& path, const json& body) const {
    return send("POST", path, body.dump(-1, ' ', false, json::error_handler_t::replace));
}
Result<json> Api::patch(const std::string& path, const json& body) const {
    return send("PATCH", path, body.dump(-1, ' ', false, json::error_handler_t::replace));
}
Result<json> Api::remove(const std::string& path) const {
    return send("DELETE", path, "");
}

}  // namespace pf::tools
