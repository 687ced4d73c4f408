// Threads that run reactors. Reactors that call one another stop and end together, in a group, so
// that no call can reach one that is gone.
#pragma once

#include <future>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "runtime/call_on.hpp"
#include "runtime/uring/uring_reactor.hpp"

namespace pf::runtime {

class ReactorGroup {
  public:
    // Starts one thread per reactor, in this order.
    [[nodiscard]] static Result<std::unique_ptr<ReactorGroup>> start(
        const std::vector<UringOptions>& each);
    ReactorGroup(const ReactorGroup&) = delete;
    ReactorGroup& operator=(const ReactorGroup&) = delete;
    // Stops every loop, then ends every reactor, each on its own thread. What still runs detached
    // is destroyed as it is: end the work before.
    ~ReactorGroup();

    [[nodiscard]] size_t size() const { return threads_.size(); }
    [[nodiscard]] UringReactor& reactor(size_t index) { return *threads_[index]->reactor; }

    // For a thread that is not a reactor (main): runs `function` on reactor `index` and waits for
    // its result. A function that returns Task<T> is awaited there. Never call it on a reactor.
    template <class Function>
    auto call(size_t index, Function function);

  private:
    struct Thread {
        std::unique_ptr<UringReactor> reactor;
        std::promise<void> may_end;
        std::promise<void> stopped;
        std::thread thread;
    };

    ReactorGroup() = default;
    static void run(Thread& thread, UringOptions options, std::promise<Status> started);

    std::vector<std::unique_ptr<Thread>> threads_;
};

namespace detail {

template <class Function>
struct BlockingCall : PostedCall {
    using Returned = std::invoke_result_t<Function&>;
    using Value = typename CallResult<Returned>::type;

    explicit BlockingCall(Function f) : function(std::move(f)) {
        run = [](PostedCall& base) { start(static_cast<BlockingCall&>(base)); };
    }
    static void start(BlockingCall& call) {
        if constexpr (CallResult<Returned>::is_task) {
            Reactor::current().spawn(await(call));
        } else if constexpr (std::is_void_v<Value>) {
            call.function();
            take_promise(call).set_value();
        } else {
            auto value = call.function();
            take_promise(call).set_value(std::move(value));
        }
    }
    static Task<void> await(BlockingCall& call) {
        auto task = std::make_optional(call.function());
        if constexpr (std::is_void_v<Value>) {
            co_await *task;
            task.reset();
            take_promise(call).set_value();
        } else {
            auto value = co_await *task;
            task.reset();
            take_promise(call).set_value(std::move(value));
        }
    }
    // The caller goes on, and ends the call, while set_value is still running.
    static std::promise<Value> take_promise(BlockingCall& call) { return std::move(call.done); }

    Function function;
    std::promise<Value> done;
};

}  // namespace detail

template <class Function>
auto ReactorGroup::call(size_t index, Function function) {
    detail::BlockingCall<Function> call(std::move(function));
    auto result = call.done.get_future();
    reactor(index).post(call);
    return result.get();
}

}  // namespace pf::runtime
