// pfdd: dd for volumes (docs/reference/pfdd.md).
#include <fmt/format.h>
#include <pfbd.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "tools/pfdd_copy.hpp"
#include "tools/pfdd_report.hpp"

namespace {

using namespace pf;
using namespace pf::tools;

volatile std::sig_atomic_t interrupted = 0;
volatile std::sig_atomic_t seconds_since = 0;

// Longer than what is under way is waited for: for a copy that hangs in a call.
constexpr int last_second = 13;

int complain(const Error& error) {
    fmt::print(stderr, "pfdd: {}\n", error.message.empty() ? error.text() : error.message);
    return 1;
}

// Once a second after the stop, so that a call that began just after the signal is interrupted too.
void on_alarm(int /*signal*/) {
    if (seconds_since >= last_second) ::_exit(128 + interrupted);
    seconds_since = seconds_since + 1;
    ::alarm(1);
}

void on_stop(int signal) {
    if (interrupted != 0) ::_exit(128 + signal);
    interrupted = signal;
    ::alarm(1);
}

// An interrupted copy ends after what is under way, and still says how far it came. Who does not
// want to wait for that sends a second signal.
void watch_signals() {
    struct sigaction action{};
    action.sa_handler = &on_stop;
    ::sigaction(SIGINT, &action, nullptr);
    ::sigaction(SIGTERM, &action, nullptr);
    action.sa_handler = &on_alarm;
    ::sigaction(SIGALRM, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
}

int copy_all(const DdOptions& options) {
    Cluster cluster;
    Endpoint input;
    Endpoint output;
    if (volume_name(options.input) || volume_name(options.output)) {
        const Status connected = cluster.connect(options.conductor, options.depth);
        if (!connected) return complain(connected.error());
    }
    // The input first: a target is not created for a source that is not there.
    if (const Status opened = input.open(options.input, Endpoint::Use::input, cluster); !opened)
        return complain(opened.error());
    if (const Status fits = check_skip(options, input); !fits) return complain(fits.error());
    if (const Status opened = output.open(options.output, Endpoint::Use::output, cluster); !opened)
        return complain(opened.error());
    Copy copy(options, cluster, input, output);
    if (const Status prepared = copy.prepare(); !prepared) return complain(prepared.error());
    Report report(options.status);
    watch_signals();
    const Status copied = copy.run([] { return interrupted != 0; }, [&] { report.tick(copy); });
    report.summary(copy);
    const int failed = copied ? 0 : complain(copied.error());
    const int status = interrupted != 0 ? 128 + interrupted : failed;
    if (copy.gave_up()) {
        (void)std::fflush(nullptr);
        ::_exit(status);
    }
    return status;
}

}  // namespace

int main(int argc, char** argv) {
    const auto options = parse_dd_options(argc, argv);
    if (!options) return complain(options.error());
    if (options->help) {
        fmt::print("{}", dd_help());
        return 0;
    }
    if (options->version) {
        fmt::print("pfdd {}\n", pfbd_version());
        return 0;
    }
    return copy_all(*options);
}
