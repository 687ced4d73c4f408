// What is behind the handles of include/pfbd.h.
//
// Thread rule: with a thread of its own, a context's reactor lives on that thread; calls come from
// any thread and are posted to it. On the caller's thread everything happens inside the calls.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "client/volume.hpp"
#include "pfbd.h"
#include "runtime/uring/reactor_thread.hpp"

namespace pf::client::capi {

// Keeps the text for pfbd_error_text() of this thread and gives the negative errno.
int explain(const Error& error);
int explain(Errc code, const char* text);
[[nodiscard]] int negative_errno(Errc code) noexcept;

}  // namespace pf::client::capi

struct pfbd_context {
    ~pfbd_context();

    [[nodiscard]] bool own_thread() const { return group != nullptr; }
    [[nodiscard]] pf::runtime::UringReactor& reactor() {
        return own_thread() ? group->reactor(0) : *on_caller;
    }
    // Functions that wait must not be called on the reactor itself.
    [[nodiscard]] int refuse_waiting();
    // Runs the task that `make` gives on the reactor and waits for its result.
    template <class Make>
    auto wait_for(Make make);
    // After I/O was started outside pfbd_poll: makes the pollable descriptor readable.
    void nudge();

    std::unique_ptr<pf::runtime::ReactorGroup> group;
    std::unique_ptr<pf::runtime::UringReactor> on_caller;
    std::unique_ptr<pf::client::Cluster> cluster;
    std::thread::id reactor_thread;
    uint32_t depth = 0;
    bool in_poll = false;  // the reactor runs on the caller's thread: a callback may be under way
    bool pollable = false;
    int callbacks = 0;  // made by the pfbd_poll under way
    struct Nudge : pf::runtime::PostedCall {
        bool posted = false;
    } nudge_call;
    std::mutex mutex;  // guards `volumes`
    std::set<pfbd_volume*> volumes;
};

// One asynchronous call. There are `depth` of them for each volume.
struct ApiIo : pf::client::Io, pf::runtime::PostedCall {
    pfbd_volume* volume = nullptr;
    pfbd_callback callback = nullptr;
    void* argument = nullptr;
    ApiIo* next_free = nullptr;
    static constexpr size_t inline_vectors = 4;
    iovec vectors_inline[inline_vectors];
    std::vector<iovec> vectors_memory;  // keeps its capacity
    pfbd_extent* extents = nullptr;     // of block_states, as the count
    uint32_t* extent_count = nullptr;
};

struct pfbd_volume {
    pfbd_context* context = nullptr;
    std::unique_ptr<pf::client::Volume> core;

    std::mutex mutex;  // guards what follows; not taken on a caller-thread context
    ApiIo* free_ios = nullptr;
    uint32_t taken_ios = 0;
    bool closing = false;  // takes no more I/O: a callback may try again for ever
    std::deque<ApiIo> ios;
    pf::client::VolumeInfo info;  // as last asked for
};

template <class Make>
auto pfbd_context::wait_for(Make make) {
    if (own_thread()) return group->call(0, std::move(make));
    using Value = typename pf::runtime::detail::CallResult<decltype(make())>::type;
    struct State {
        static pf::runtime::Task<void> run(State* state, pf::runtime::Task<Value> task) {
            state->value.emplace(co_await task);
        }
        std::optional<Value> value;
    } state;
    {
        pf::runtime::Reactor::Enter enter(*on_caller);
        on_caller->spawn(State::run(&state, make()));
    }
    // Callbacks of other I/O come in here too: what waits inside them is refused.
    const bool outer = std::exchange(in_poll, true);
    const auto done = [&state] { return state.value.has_value(); };
    while (!state.value) on_caller->poll(pf::runtime::never, done);
    in_poll = outer;
    return std::move(*state.value);
}

namespace pf::client::capi {

// Guards the slots and the description of a volume.
class SlotLock {
  public:
    explicit SlotLock(pfbd_volume& volume) : volume_(volume) {
        if (volume_.context->own_thread()) volume_.mutex.lock();
    }
    SlotLock(const SlotLock&) = delete;
    SlotLock& operator=(const SlotLock&) = delete;
    ~SlotLock() {
        if (volume_.context->own_thread()) volume_.mutex.unlock();
    }

  private:
    pfbd_volume& volume_;
};

// The asynchronous calls that a volume can have under way.
void make_slots(pfbd_volume& volume);
// Whether some of them are under way.
[[nodiscard]] bool has_taken_slots(pfbd_volume& volume);

}  // namespace pf::client::capi
