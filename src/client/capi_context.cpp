// Contexts: where the I/O of a program runs, and how it finds the cluster.
#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "client/capi.hpp"
#include "client/conductor_address.hpp"

namespace {

using namespace pf;
using client::capi::explain;
using runtime::Task;

constexpr uint32_t default_depth = 128;
constexpr uint64_t default_buffer_bytes = uint64_t{64} << 20;
constexpr uint64_t min_buffer_bytes = uint64_t{8} << 20;
constexpr uint64_t max_buffer_bytes = uint64_t{64} << 30;

// The part of the caller's struct that it knows; what it does not know is zero.
Result<pfbd_options> read_options(const pfbd_options* given) {
    pfbd_options options{};
    if (given == nullptr) return options;
    if (given->struct_bytes < offsetof(pfbd_options, flags))
        return fail(Errc::invalid_argument, "pfbd_options.struct_bytes is not set");
    std::memcpy(&options, given, std::min(given->struct_bytes, sizeof(options)));
    if ((options.flags & ~uint32_t{PFBD_CALLER_THREAD}) != 0)
        return fail(Errc::invalid_argument,
                    fmt::format("pfbd_options.flags has unknown bits {:#x}", options.flags));
    if (options.depth > 1024)
        return fail(Errc::invalid_argument,
                    fmt::format("depth is {}, allowed is 1 to 1024", options.depth));
    if (options.buffer_bytes != 0 &&
        (options.buffer_bytes < min_buffer_bytes || options.buffer_bytes > max_buffer_bytes))
        return fail(Errc::invalid_argument, "buffer_bytes is not from 8 MiB to 64 GiB");
    return options;
}

std::string client_name() {
    char host[256] = {};
    if (::gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
    return fmt::format("{} {} {}", host, program_invocation_short_name, ::getpid());
}

// A library's thread takes none of the program's signals.
Result<std::unique_ptr<runtime::ReactorGroup>> start_quiet_thread(
    const runtime::UringOptions& options) {
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    auto group = runtime::ReactorGroup::start({options});
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return group;
}

Task<std::thread::id> this_thread() {
    co_return std::this_thread::get_id();
}

Task<bool> close_cluster(client::Cluster* cluster) {
    co_await cluster->close();
    co_return true;
}

Status start(pfbd_context& context, const pfbd_options& given) {
    runtime::UringOptions options;
    options.buffer_arena_bytes =
        given.buffer_bytes == 0 ? default_buffer_bytes : given.buffer_bytes;
    options.register_arena = false;  // only sockets: nothing to gain from pinned memory
    if (::getrandom(&options.seed, sizeof(options.seed), 0) != sizeof(options.seed))
        options.seed = static_cast<uint64_t>(::getpid());
    client::ClusterOptions cluster;
    PF_TRY_ASSIGN(cluster.conductor, client::conductor_address(given.conductor));
    cluster.client_name = client_name();
    cluster.depth = context.depth = given.depth == 0 ? default_depth : given.depth;
    cluster.io_timeout = given.io_timeout_ms * runtime::milliseconds;
    if ((given.flags & PFBD_CALLER_THREAD) != 0) {
        PF_TRY_ASSIGN(context.on_caller, runtime::UringReactor::create(options));
        context.reactor_thread = std::this_thread::get_id();
    } else {
        PF_TRY_ASSIGN(context.group, start_quiet_thread(options));
        context.reactor_thread = context.wait_for([] { return this_thread(); });
    }
    PF_TRY_ASSIGN(context.cluster, client::Cluster::create(std::move(cluster)));
    return {};
}

}  // namespace

int pfbd_context::refuse_waiting() {
    const bool inside = own_thread() ? std::this_thread::get_id() == reactor_thread : in_poll;
    if (!inside) return 0;
    explain(Errc::busy, "a function that waits was called from inside a callback");
    return -EDEADLK;
}

void pfbd_context::nudge() {
    if (!pollable || in_poll || nudge_call.posted) return;
    nudge_call.posted = true;
    nudge_call.run = [](runtime::PostedCall& call) { static_cast<Nudge&>(call).posted = false; };
    on_caller->post(nudge_call);
}

pfbd_context::~pfbd_context() {
    while (!volumes.empty()) pfbd_close(*volumes.begin());
    if (cluster != nullptr) {
        client::Cluster* closing = cluster.get();
        wait_for([closing] { return close_cluster(closing); });
    }
}

extern "C" int pfbd_context_create(const pfbd_options* given, pfbd_context** created) {
    if (created == nullptr) return explain(Errc::invalid_argument, "context is NULL");
    *created = nullptr;
    auto options = read_options(given);
    if (!options) return explain(options.error());
    auto context = std::make_unique<pfbd_context>();
    const Status started = start(*context, *options);
    if (!started) return explain(started.error());
    *created = context.release();
    return 0;
}

extern "C" void pfbd_context_destroy(pfbd_context* context) {
    if (context == nullptr || context->refuse_waiting() != 0) return;
    delete context;
}

extern "C" int pfbd_poll(pfbd_context* context, int64_t timeout_us) {
    if (context->own_thread())
        return explain(Errc::invalid_argument, "this context has a thread of its own");
    if (context->in_poll) return context->refuse_waiting();
    constexpr int64_t longest_us = INT64_MAX / 1000;  // as nanoseconds
    const bool limited = timeout_us >= 0 && timeout_us < longest_us;
    context->callbacks = 0;
    context->in_poll = true;
    // What was done without the cluster, like a flush of nothing, is called back in the turn before
    // the wait: there may be nothing else to wait for.
    context->on_caller->poll(
        limited ? static_cast<uint64_t>(timeout_us) * runtime::microseconds : runtime::never,
        [context] { return context->callbacks > 0; });
    context->in_poll = false;
    return context->callbacks;
}

extern "C" int pfbd_poll_fd(pfbd_context* context) {
    if (context->own_thread())
        return explain(Errc::invalid_argument, "this context has a thread of its own");
    const auto fd = context->on_caller->pollable_fd();
    if (!fd) return explain(fd.error());
    context->pollable = true;
    return *fd;
}
