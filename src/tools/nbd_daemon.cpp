#include "tools/nbd_daemon.hpp"

#include <fmt/format.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>

#include "attach/nbd_server.hpp"
#include "runtime/uring/reactor_thread.hpp"
#include "tools/daemon.hpp"

namespace pf::tools {

using runtime::Task;

namespace {

// What is under way is answered, or cut, early enough for a clean end within the limit.
constexpr runtime::Nanos answer_grace = 8 * runtime::seconds;
constexpr std::chrono::seconds stop_limit{10};
// 72 MiB for payloads, 8 for the receive batches of all connections, the rest for the client
// library.
constexpr size_t arena_bytes = size_t{128} << 20;

void print_error(const Error& error) {
    (void)fmt::print(stderr, "pfbd: {}\n", error.text());
}

Result<runtime::Address> where_to_listen(const NbdArguments& arguments) {
    if (arguments.socket.empty() == arguments.listen.empty())
        return fail(Errc::invalid_argument, "give either --socket PATH or --listen HOST:PORT");
    if (!arguments.listen.empty()) {
        PF_TRY_ASSIGN(runtime::Address address, runtime::Address::parse(arguments.listen));
        PF_TRY(check_listen(address.host, arguments.insecure_listen));
        return address;
    }
    std::string path = arguments.socket;
    if (!path.starts_with('/')) {
        char here[PATH_MAX];
        if (::realpath(".", here) == nullptr)
            return fail(Errc::invalid_argument, "the current folder is gone: give a full path");
        path = fmt::format("{}/{}", here, path);
    }
    return runtime::Address{path, 0};
}

// A name or path may hold anything; in a URI only these characters stand for themselves.
std::string escape(std::string_view text, std::string_view also_plain) {
    std::string out;
    for (const char c : text) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') || also_plain.find(c) != std::string_view::npos;
        out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
    return out;
}

std::string uri_of(const runtime::Address& address, const std::string& name) {
    const std::string export_name = escape(name, "-_.~");
    if (address.host.starts_with('/'))
        return fmt::format("nbd+unix:///{}?socket={}", export_name, escape(address.host, "-_.~/"));
    return fmt::format("nbd://{}/{}", address.text(), export_name);
}

// Everything that lives on the reactor.
struct NbdProcess {
    std::unique_ptr<VolumeSource> source;
    std::unique_ptr<attach::nbd::Server> server;

    Task<Result<std::string>> start(NbdArguments arguments, runtime::Address address) {
        // The socket first: a name that is taken is refused before the volume is touched.
        auto listener = runtime::Reactor::current().listen(address);
        if (!listener) co_return std::unexpected(std::move(listener).error());
        const runtime::Address local = (*listener)->local();
        auto volume = co_await source->open(arguments.name, arguments.read_only);
        if (!volume) co_return std::unexpected(std::move(volume).error());
        std::vector<attach::nbd::Export> exports;
        exports.push_back({arguments.name, *volume, arguments.read_only});
        server = std::make_unique<attach::nbd::Server>(std::move(exports),
                                                       attach::nbd::ServerOptions{}, &print_error);
        server->start(std::move(*listener));
        co_return uri_of(local, arguments.name);
    }
    Task<void> stop() {
        if (server != nullptr) co_await server->stop(answer_grace);
        server.reset();
        co_await source->close();
        source.reset();
    }
};

// Ends the process if stopping takes too long: I/O to a store that is away cannot be taken back.
// The socket file is not its business: the listener was shut down first of all, and by now the path
// may be a successor's.
class StopLimit {
  public:
    StopLimit() : thread_([this] { watch(); }) {}
    StopLimit(const StopLimit&) = delete;
    StopLimit& operator=(const StopLimit&) = delete;
    ~StopLimit() {
        {
            const std::lock_guard lock(mutex_);
            stopped_ = true;
        }
        changed_.notify_one();
        thread_.join();
    }

  private:
    void watch() {
        std::unique_lock lock(mutex_);
        if (changed_.wait_for(lock, stop_limit, [this] { return stopped_; })) return;
        print_error({Errc::timed_out,
                     fmt::format("what was under way did not end within {} s and was given up: is "
                                 "a store away?",
                                 stop_limit.count())});
        ::_exit(1);
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    bool stopped_ = false;
    std::thread thread_;
};

}  // namespace

int run_nbd(const NbdArguments& arguments,
            const std::function<std::unique_ptr<VolumeSource>()>& make_source) {
    block_stop_signals();
    const auto address = where_to_listen(arguments);
    if (!address) {
        print_error(address.error());
        return 2;
    }
    runtime::UringOptions options;
    options.buffer_arena_bytes = arena_bytes;
    options.register_arena = false;  // its memory never meets a disk; do not pin all of it
    auto group = runtime::ReactorGroup::start({options});
    if (!group) {
        print_error(group.error());
        return 1;
    }
    NbdProcess process;
    const auto started = (*group)->call(0, [&]() -> Task<Result<std::string>> {
        process.source = make_source();
        return process.start(arguments, *address);
    });
    if (started) {
        (void)fmt::print("ready {}\n", *started);
        (void)std::fflush(stdout);
        serve_until_stopped();
    } else {
        print_error(started.error());
    }
    const StopLimit limit;
    (*group)->call(0, [&] { return process.stop(); });
    return started ? 0 : 1;
}

}  // namespace pf::tools
