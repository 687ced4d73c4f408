// pfdd: dd for volumes (docs/reference/pfdd.md).
#include <fmt/format.h>
#include <pfbd.h>

#include <csignal>
#include <cstdio>

#include "tools/pfdd_copy.hpp"
#include "tools/pfdd_report.hpp"

namespace {

using namespace pf;
using namespace pf::tools;

volatile std::sig_atomic_t interrupted = 0;

int complain(const Error& error) {
    fmt::print(stderr, "pfdd: {}\n", error.message.empty() ? error.text() : error.message);
    return 1;
}

// An interrupted copy ends after what is under way, and still says how far it came.
void watch_signals() {
    struct sigaction action{};
    action.sa_handler = [](int signal) { interrupted = signal; };
    ::sigaction(SIGINT, &action, nullptr);
    ::sigaction(SIGTERM, &action, nullptr);
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
    if (const Status opened = output.open(options.output, Endpoint::Use::output, cluster); !opened)
        return complain(opened.error());
    Copy copy(options, cluster, input, output);
    if (const Status prepared = copy.prepare(); !prepared) return complain(prepared.error());
    Report report(options.status);
    watch_signals();
    const Status copied = copy.run([] { return interrupted != 0; }, [&] { report.tick(copy); });
    report.summary(copy);
    if (!copied) return complain(copied.error());
    return interrupted != 0 ? 128 + interrupted : 0;
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
