// Calls between reactors: `co_await call_on(target, function)` runs `function` on the target's
// thread and brings its result back. A function that returns Task<T> is awaited on the target and
// gives T. Uses only Reactor::post, so it works on every implementation; nothing is allocated
// besides coroutine frames.
//
// Lifetime: the state lives in the caller's frame, so the calling coroutine is not destroyed while
// a call is out, unless both reactors have stopped running.
//
// gcc 12: name a function object with a non-trivial destructor before the co_await.
#pragma once

#include <optional>
#include <type_traits>
#include <utility>

#include "runtime/reactor.hpp"
#include "runtime/task.hpp"

namespace pf::runtime {

namespace detail {

template <class T>
struct CallResult {
    using type = T;
    static constexpr bool is_task = false;
};
template <class T>
struct CallResult<Task<T>> {
    using type = T;
    static constexpr bool is_task = true;
};

template <class Function>
class CrossCall : PostedCall {
  public:
    using Returned = std::invoke_result_t<Function&>;
    using Value = typename CallResult<Returned>::type;
    static constexpr bool is_task = CallResult<Returned>::is_task;

    CrossCall(Reactor& target, Function function)
        : target_(target), home_(Reactor::current()), function_(std::move(function)) {}

    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) {
        waiter_ = waiter;
        run = [](PostedCall& base) { static_cast<CrossCall&>(base).arrive(); };
        target_.post(*this);
    }
    Value await_resume() {
        if constexpr (!std::is_void_v<Value>) return std::move(*value_);
    }

  private:
    using Stored = std::conditional_t<std::is_void_v<Value>, bool, Value>;

    void arrive() {
        if constexpr (is_task) {
            target_.spawn(finish_task(*this));
        } else if constexpr (std::is_void_v<Value>) {
            function_();
            go_home();
        } else {
            value_.emplace(function_());
            go_home();
        }
    }
    static Task<void> finish_task(CrossCall& call) {
        // The task ends before the way home: its frame must not be used once the caller runs.
        {
            auto task = call.function_();
            if constexpr (std::is_void_v<Value>) {
                co_await task;
            } else {
                auto value = co_await task;
                call.value_.emplace(std::move(value));
            }
        }
        call.go_home();
    }
    void go_home() {
        run = [](PostedCall& base) { static_cast<CrossCall&>(base).resume_caller(); };
        home_.post(*this);
    }
    void resume_caller() { home_.schedule(waiter_); }

    Reactor& target_;
    Reactor& home_;
    Function function_;
    std::coroutine_handle<> waiter_;
    std::optional<Stored> value_;
};

}  // namespace detail

template <class Function>
[[nodiscard]] auto call_on(Reactor& target, Function function)
    -> Task<typename detail::CrossCall<Function>::Value> {
    detail::CrossCall<Function> call(target, std::move(function));
    if constexpr (std::is_void_v<typename detail::CrossCall<Function>::Value>) {
        co_await call;
    } else {
        auto value = co_await call;
        co_return value;
    }
}

}  // namespace pf::runtime
