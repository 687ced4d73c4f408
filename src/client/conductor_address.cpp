#include "client/conductor_address.hpp"

#include <fmt/format.h>
#include <netdb.h>

#include <cstdlib>
#include <string>

#include "base/ports.hpp"

namespace pf::client {

Result<runtime::Address> conductor_address(const char* given) {
    std::string text = fmt::format("127.0.0.1:{}", default_conductor_http_port);
    if (given == nullptr || *given == '\0') given = std::getenv("PF_CONDUCTOR");
    if (given != nullptr && *given != '\0') text = given;
    PF_TRY_ASSIGN(auto address, runtime::Address::parse(text));
    if (address.port == 0 || address.port > UINT16_MAX - conductor_rpc_from_http)
        return fail(Errc::invalid_argument,
                    fmt::format("conductor '{}' has no usable port: it is the HTTP port, {} unless "
                                "configured otherwise",
                                text, default_conductor_http_port));
    address.port = static_cast<uint16_t>(address.port + conductor_rpc_from_http);
    // The resolver may give ::1 first, where servers listen on 127.0.0.1 unless told otherwise.
    if (address.host == "localhost") return address;
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int failed = ::getaddrinfo(address.host.c_str(), nullptr, &hints, &found);
    if (failed != 0)
        return fail(Errc::not_found,
                    fmt::format("conductor host '{}': {}", address.host, ::gai_strerror(failed)));
    const addrinfo* chosen = found;
    while (chosen != nullptr && chosen->ai_family != AF_INET) chosen = chosen->ai_next;
    if (chosen == nullptr) chosen = found;
    char numeric[NI_MAXHOST] = {};
    const int named = ::getnameinfo(chosen->ai_addr, chosen->ai_addrlen, numeric, sizeof(numeric),
                                    nullptr, 0, NI_NUMERICHOST);
    ::freeaddrinfo(found);
    if (named != 0)
        return fail(Errc::not_found,
                    fmt::format("conductor host '{}': {}", address.host, ::gai_strerror(named)));
    address.host = numeric;
    return address;
}

}  // namespace pf::client
