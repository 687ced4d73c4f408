// Errors are values. Every fallible call returns Result<T>; nothing throws across a module border.
//
// An Error is a code that programs act on and a message that people read. A message says what was
// attempted, which value was refused, what is allowed and what to do next. On the I/O path the
// message stays empty, so making an Error there allocates nothing.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace pf {

// The numeric values travel on the wire (docs/formats/wire.md): never renumber, only append.
enum class Errc : uint16_t {
    ok = 0,
    invalid_argument = 1,  // the request can never succeed as it is
    not_found = 2,         // no such volume, store, tray, generation
    already_exists = 3,
    out_of_range = 4,      // beyond the end of the volume
    no_space = 5,          // the tray is full; reads and deletes still work
    io_error = 6,          // the medium failed
    corrupt = 7,           // a checksum did not match; the bytes are not returned
    bad_payload = 8,       // data did not match the checksum sent with it (T13): resend
    miscompare = 9,        // compare-and-write found other data
    stale_epoch = 10,      // the message's shard epoch is not the current one: refresh the map
    fenced = 11,           // the writer token or the session was replaced
    unknown_session = 12,  // this replica has never logged the session
    not_primary = 13,
    read_only = 14,
    busy = 15,       // in use by someone else; retry later or use --force
    timed_out = 16,  // outcome unknown
    cancelled = 17,
    disconnected = 18,
    protocol = 19,  // malformed or unexpected message
    unsupported_version = 20,
    unsupported = 21,         // valid but not offered here
    resource_exhausted = 22,  // a stated limit was reached
    conflict = 23,            // a compare-and-set lost
    unavailable = 24,         // try again: starting, stopping, or without a replica
    internal = 25,            // a bug; the message says where
    never_applied = 26,       // a write was aborted and will never be applied (R10)
    data_lost = 27,  // part of the shard's log is gone (T7): no I/O until the loss is accepted
};

// A short lowercase phrase for people, e.g. "no space".
[[nodiscard]] std::string_view describe(Errc code) noexcept;

struct Error {
    Errc code = Errc::internal;
    std::string message;

    // "message (phrase)", or the phrase alone.
    [[nodiscard]] std::string text() const;
};

template <class T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

[[nodiscard]] inline std::unexpected<Error> fail(Errc code) {
    return std::unexpected<Error>(Error{code, {}});
}
[[nodiscard]] inline std::unexpected<Error> fail(Errc code, std::string message) {
    return std::unexpected<Error>(Error{code, std::move(message)});
}

// Maps an errno value (positive) to the nearest code.
[[nodiscard]] Errc from_errno(int error_number) noexcept;

}  // namespace pf

#define PF_CONCAT_(a, b) a##b
#define PF_CONCAT(a, b) PF_CONCAT_(a, b)

// PF_TRY(expr): returns the error of a Status or Result to the caller.
// PF_TRY_ASSIGN(auto x, expr): the same, and binds the value.
// The PF_CO_ forms are for coroutines.
#define PF_TRY_IMPL_(keyword, name, ...)  \
    if (auto name = (__VA_ARGS__); !name) \
    keyword std::unexpected<::pf::Error>(std::move(name).error())
#define PF_TRY(...) PF_TRY_IMPL_(return, PF_CONCAT(pf_try_, __LINE__), __VA_ARGS__)
#define PF_TRY_ASSIGN_IMPL_(keyword, name, declaration, ...)                  \
    auto name = (__VA_ARGS__);                                                \
    if (!name) keyword std::unexpected<::pf::Error>(std::move(name).error()); \
    declaration = std::move(*name)
#define PF_TRY_ASSIGN(declaration, ...) \
    PF_TRY_ASSIGN_IMPL_(return, PF_CONCAT(pf_try_, __LINE__), declaration, __VA_ARGS__)
// gcc 12 miscompiles co_await in an if-initializer, hence the plain declaration.
#define PF_CO_TRY_IMPL_(name, ...)                                                  \
    do {                                                                            \
        auto name = (__VA_ARGS__);                                                  \
        if (!name) co_return std::unexpected<::pf::Error>(std::move(name).error()); \
    } while (false)
#define PF_CO_TRY(...) PF_CO_TRY_IMPL_(PF_CONCAT(pf_try_, __LINE__), __VA_ARGS__)
#define PF_CO_TRY_ASSIGN(declaration, ...) \
    PF_TRY_ASSIGN_IMPL_(co_return, PF_CONCAT(pf_try_, __LINE__), declaration, __VA_ARGS__)
