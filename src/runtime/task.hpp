// Task<T>: a lazily started coroutine that its caller awaits once.
//
// Awaiting runs the child at once on the caller's stack until its first suspension; if it finishes
// there, the caller goes on without a trip through the ready queue. A child that finishes later
// puts its caller on the reactor's ready queue. There is no symmetric transfer (g++-12 grows the
// stack without optimisation), and nothing ever resumes a coroutine but the reactor loop.
//
// Lifetime: a Task owns its frame and destroys it. Destroying a suspended Task destroys everything
// below it, which is how the simulator kills a process; an awaitable's destructor must therefore
// unlink itself from whatever it waits on. Exceptions end the program.
//
// gcc 12: do not pass brace-initialized aggregates as temporaries inside a co_await expression, and
// do not co_await inside a condition; name the value first.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

#include "base/assert.hpp"
#include "runtime/frame_pool.hpp"

namespace pf::runtime {

// Puts a coroutine on the ready queue of the current reactor (defined in reactor.cpp).
void schedule(std::coroutine_handle<> handle);

template <class T = void>
class Task;

namespace detail {

struct PromiseBase {
    static void* operator new(size_t bytes) { return allocate_frame(bytes); }
    static void operator delete(void* frame, size_t bytes) noexcept { free_frame(frame, bytes); }

    struct FinalAwaiter {
        bool await_ready() const noexcept { return false; }
        template <class Promise>
        void await_suspend(std::coroutine_handle<Promise> handle) const noexcept {
            PromiseBase& promise = handle.promise();
            promise.finished = true;
            // While the awaiting caller is still inside await_suspend it looks at `finished`
            // itself.
            if (promise.continuation && !promise.starting) schedule(promise.continuation);
        }
        void await_resume() const noexcept {}
    };

    std::suspend_always initial_suspend() const noexcept { return {}; }
    FinalAwaiter final_suspend() const noexcept { return {}; }
    void unhandled_exception() const noexcept { std::terminate(); }

    std::coroutine_handle<> continuation;
    bool starting = false;
    bool finished = false;
};

template <class T>
struct Promise : PromiseBase {
    Task<T> get_return_object();
    template <class U>
    void return_value(U&& result) {
        value.emplace(std::forward<U>(result));
    }
    T take() { return std::move(*value); }
    std::optional<T> value;
};

template <>
struct Promise<void> : PromiseBase {
    Task<void> get_return_object();
    void return_void() const noexcept {}
    void take() const noexcept {}
};

}  // namespace detail

template <class T>
class [[nodiscard]] Task {
  public:
    using promise_type = detail::Promise<T>;

    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Task& operator=(Task&& other) noexcept {
        if (this != &other) {
            if (handle_) handle_.destroy();
            handle_ = std::exchange(other.handle_, nullptr);
        }
        return *this;
    }
    Task(const Task&) = delete;
    Task& operator=(const Task&) = delete;
    ~Task() {
        if (handle_) handle_.destroy();
    }

    struct Awaiter {
        std::coroutine_handle<promise_type> handle;
        bool await_ready() const noexcept { return false; }
        bool await_suspend(std::coroutine_handle<> caller) const {
            promise_type& promise = handle.promise();
            PF_ASSERT(!promise.continuation);
            promise.continuation = caller;
            promise.starting = true;
            handle.resume();
            promise.starting = false;
            return !promise.finished;
        }
        T await_resume() const { return handle.promise().take(); }
    };
    Awaiter operator co_await() const noexcept { return Awaiter{handle_}; }

  private:
    friend promise_type;
    explicit Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
    std::coroutine_handle<promise_type> handle_;
};

namespace detail {
template <class T>
Task<T> Promise<T>::get_return_object() {
    return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Task<void> Promise<void>::get_return_object() {
    return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}
}  // namespace detail

}  // namespace pf::runtime
