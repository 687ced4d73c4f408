#include "tools/daemon.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <ctime>

#include "tools/notify.hpp"

namespace pf::tools {

namespace {
sigset_t stop_signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}
}  // namespace

void block_stop_signals() {
    const sigset_t set = stop_signals();
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
}

void serve_until_stopped() {
    notify_service_manager("READY=1");
    const sigset_t set = stop_signals();
    int received = 0;
    while (::sigwait(&set, &received) != 0) {
    }
    notify_service_manager("STOPPING=1");
}

bool stop_requested(unsigned milliseconds) {
    const sigset_t set = stop_signals();
    const timespec wait{milliseconds / 1000, long{milliseconds % 1000} * 1'000'000};
    return ::sigtimedwait(&set, nullptr, &wait) > 0;
}

void limit_stop_time(unsigned seconds) {
    ::signal(SIGALRM, SIG_DFL);
    ::alarm(seconds);
}

Status check_listen(const std::string& host, bool insecure_listen) {
    const bool loopback = host.starts_with("127.") || host == "::1" || host == "localhost";
    if (loopback || insecure_listen) return {};
    return fail(Errc::invalid_argument,
                fmt::format("refusing to listen on {}: there is no authentication yet, and anyone "
                            "who reaches the port can read and write every volume; use 127.0.0.1, "
                            "or --insecure-listen on a trusted network",
                            host));
}

}  // namespace pf::tools
