#include "runtime/reactor.hpp"

namespace pf::runtime {

namespace {
thread_local Reactor* current_reactor = nullptr;
constexpr size_t max_resumes_per_turn = 4096;
}  // namespace

void schedule(std::coroutine_handle<> handle) {
    Reactor::current().schedule(handle);
}

Reactor& Reactor::current() {
    PF_ASSERT(current_reactor != nullptr);
    return *current_reactor;
}

Reactor::Enter::Enter(Reactor& reactor) : previous_(current_reactor) {
    current_reactor = &reactor;
}
Reactor::Enter::~Enter() {
    current_reactor = previous_;
}

// The coroutine behind spawn(): owns the task, is linked to the reactor while it lives and frees
// itself.
struct DetachedTask {
    struct promise_type : DetachedHook {
        static void* operator new(size_t bytes) { return allocate_frame(bytes); }
        static void operator delete(void* frame, size_t bytes) noexcept {
            free_frame(frame, bytes);
        }
        DetachedTask get_return_object() {
            handle = std::coroutine_handle<promise_type>::from_promise(*this);
            return {};
        }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        std::suspend_never final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        void unhandled_exception() const noexcept { std::terminate(); }
    };

    // Links the coroutine that awaits it, without suspending.
    struct Link {
        Reactor& reactor;
        bool await_ready() const noexcept { return false; }
        bool await_suspend(std::coroutine_handle<promise_type> handle) const {
            reactor.detached_.push_back(handle.promise());
            return false;
        }
        void await_resume() const noexcept {}
    };

    static DetachedTask run(Reactor& reactor, Task<void> task) {
        co_await Link{reactor};
        co_await task;
    }
};

void Reactor::spawn(Task<void> task) {
    Enter enter(*this);
    DetachedTask::run(*this, std::move(task));
}

bool Reactor::run_ready() {
    Enter enter(*this);
    for (size_t resumed = 0; resumed < max_resumes_per_turn;) {
        if (ready_.empty() && end_of_turn_.empty()) return false;
        if (ready_.empty()) {
            for (size_t left = end_of_turn_.size(); left > 0; --left)
                ready_.push(end_of_turn_.pop());
        }
        for (size_t left = ready_.size(); left > 0; --left, ++resumed) ready_.pop().resume();
    }
    return !ready_.empty() || !end_of_turn_.empty();
}

void Reactor::destroy_detached() {
    Enter enter(*this);
    // Destroying a frame may make others ready or spawn; they are destroyed too, never resumed.
    while (DetachedHook* hook = detached_.pop_front()) hook->handle.destroy();
    ready_.clear();
    end_of_turn_.clear();
}

Reactor::~Reactor() {
    destroy_detached();
}

void SleepAwaiter::await_suspend(std::coroutine_handle<> handle) {
    waiter_ = handle;
    Reactor& reactor = Reactor::current();
    const Nanos now = reactor.now();
    reactor.timers().arm(*this, duration_ > never - now ? never : now + duration_);
}

void SleepAwaiter::wake(Timer& timer) {
    schedule(static_cast<SleepAwaiter&>(timer).waiter_);
}

}  // namespace pf::runtime
