// Errors as C programs know them: a negative errno and a text per thread.
#include <cerrno>
#include <string>

#include "client/capi.hpp"

namespace pf::client::capi {

namespace {
thread_local std::string last_text;
}

int negative_errno(Errc code) noexcept {
    switch (code) {
        case Errc::ok:
            return 0;
        case Errc::invalid_argument:
            return -EINVAL;
        case Errc::not_found:
            return -ENOENT;
        case Errc::already_exists:
            return -EEXIST;
        case Errc::out_of_range:
            return -ERANGE;
        case Errc::no_space:
            return -ENOSPC;
        case Errc::corrupt:
        case Errc::bad_payload:
            return -EILSEQ;
        case Errc::miscompare:
            return -ECANCELED;
        case Errc::stale_epoch:
        case Errc::not_primary:
        case Errc::unavailable:
            return -EHOSTDOWN;
        case Errc::fenced:
        case Errc::unknown_session:
            return -ESTALE;
        case Errc::read_only:
            return -EROFS;
        case Errc::busy:
        case Errc::conflict:
            return -EBUSY;
        case Errc::timed_out:
        case Errc::never_applied:
            return -ETIMEDOUT;
        case Errc::cancelled:
            return -ESHUTDOWN;
        case Errc::disconnected:
            return -ENOTCONN;
        case Errc::protocol:
            return -EPROTO;
        case Errc::unsupported_version:
            return -EPROTONOSUPPORT;
        case Errc::unsupported:
            return -EOPNOTSUPP;
        case Errc::resource_exhausted:
            return -ENOBUFS;
        case Errc::io_error:
        case Errc::data_lost:
        case Errc::internal:
            return -EIO;
    }
    return -EIO;
}

int explain(const Error& error) {
    last_text = error.text();
    return negative_errno(error.code);
}

int explain(Errc code, const char* text) {
    return explain(Error{code, text});
}

}  // namespace pf::client::capi

extern "C" const char* pfbd_error_text(void) {
    return pf::client::capi::last_text.c_str();
}

extern "C" const char* pfbd_version(void) {
    return PF_VERSION;
}
