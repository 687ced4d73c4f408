#include "base/error.hpp"

#include <cerrno>

namespace pf {

std::string_view describe(Errc code) noexcept {
    switch (code) {
        case Errc::ok:
            return "ok";
        case Errc::invalid_argument:
            return "invalid argument";
        case Errc::not_found:
            return "not found";
        case Errc::already_exists:
            return "already exists";
        case Errc::out_of_range:
            return "out of range";
        case Errc::no_space:
            return "no space";
        case Errc::io_error:
            return "I/O error";
        case Errc::corrupt:
            return "checksum mismatch";
        case Errc::bad_payload:
            return "payload does not match its checksum";
        case Errc::miscompare:
            return "compared data differs";
        case Errc::stale_epoch:
            return "stale epoch";
        case Errc::fenced:
            return "fenced";
        case Errc::unknown_session:
            return "unknown session";
        case Errc::not_primary:
            return "not the primary";
        case Errc::read_only:
            return "read-only";
        case Errc::busy:
            return "busy";
        case Errc::timed_out:
            return "timed out";
        case Errc::cancelled:
            return "cancelled";
        case Errc::disconnected:
            return "disconnected";
        case Errc::protocol:
            return "protocol violation";
        case Errc::unsupported_version:
            return "unsupported version";
        case Errc::unsupported:
            return "not supported";
        case Errc::resource_exhausted:
            return "limit reached";
        case Errc::conflict:
            return "conflict";
        case Errc::unavailable:
            return "unavailable";
        case Errc::internal:
            return "internal error";
        case Errc::never_applied:
            return "aborted, never applied";
        case Errc::data_lost:
            return "data lost, not accepted yet";
    }
    return "unknown error";
}

std::string Error::text() const {
    if (message.empty()) return std::string(describe(code));
    return message + " (" + std::string(describe(code)) + ")";
}

Errc from_errno(int error_number) noexcept {
    switch (error_number) {
        case 0:
            return Errc::ok;
        case EINVAL:
            return Errc::invalid_argument;
        case ENOENT:
        case ENODEV:
        case ENXIO:
            return Errc::not_found;
        case EEXIST:
            return Errc::already_exists;
        case ENOSPC:
        case EDQUOT:
            return Errc::no_space;
        case EBUSY:
        case EADDRINUSE:
            return Errc::busy;
        case ETIMEDOUT:
            return Errc::timed_out;
        case ECANCELED:
            return Errc::cancelled;
        case EPIPE:
        case ECONNRESET:
        case ECONNREFUSED:
        case ECONNABORTED:
        case ENOTCONN:
        case EHOSTUNREACH:
        case ENETUNREACH:
        case ESHUTDOWN:
            return Errc::disconnected;
        case EROFS:
            return Errc::read_only;
        case ENOMEM:
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
            return Errc::resource_exhausted;
        case EOPNOTSUPP:
        case ENOSYS:
            return Errc::unsupported;
        default:
            return Errc::io_error;
    }
}

}  // namespace pf
