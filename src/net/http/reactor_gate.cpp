#include "net/http/reactor_gate.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/assert.hpp"

namespace pf::net {

using runtime::Task;

struct ReactorGate::State {
    State(runtime::Reactor& target, size_t limit) : reactor(target), max_calls(limit) {}
    runtime::Reactor& reactor;
    const size_t max_calls;
    std::mutex mutex;
    size_t calls = 0;     // posted and not finished; under the mutex
    bool closed = false;  // under the mutex
    runtime::WaitQueue finished;  // the reactor's
};

struct ReactorGate::Call : runtime::PostedCall {
    std::shared_ptr<State> state;
    std::shared_ptr<Call> self;  // held until the reactor is done with it
    Work work;
    HttpResponse response;
    std::mutex mutex;
    std::condition_variable answered;
    bool has_response = false;
};

ReactorGate::ReactorGate(runtime::Reactor& reactor, size_t max_calls, unsigned timeout_s)
    : state_(std::make_shared<State>(reactor, max_calls)), timeout_s_(timeout_s) {}

ReactorGate::~ReactorGate() {
    const std::lock_guard lock(state_->mutex);
    state_->closed = true;
}

HttpResponse ReactorGate::call(Work work) {
    const auto call = std::make_shared<Call>();
    call->state = state_;
    call->work = std::move(work);
    call->run = [](runtime::PostedCall& posted) {
        auto& self = static_cast<Call&>(posted);
        self.state->reactor.spawn(serve(std::move(self.self)));
    };
    {
        const std::lock_guard lock(state_->mutex);
        if (state_->closed) {
            return http_error(Error{Errc::unavailable, "the daemon is stopping"});
        }
        if (state_->calls >= state_->max_calls) {
            return http_error(Error{Errc::unavailable, "too many requests at once: try again"});
        }
        ++state_->calls;
        call->self = call;
        state_->reactor.post(*call);
    }
    std::unique_lock lock(call->mutex);
    const bool answered = call->answered.wait_for(lock, std::chrono::seconds(timeout_s_),
                                                  [&] { return call->has_response; });
    if (!answered) {
        return http_error(Error{Errc::timed_out,
                                "no answer in time: it may still be done, look before repeating"});
    }
    return std::move(call->response);
}

Task<void> ReactorGate::serve(std::shared_ptr<Call> call) {
    {
        Task<HttpResponse> work = call->work();
        HttpResponse response = co_await work;
        const std::lock_guard lock(call->mutex);
        call->response = std::move(response);
        call->has_response = true;
        call->answered.notify_one();
    }
    // The work may refer to what idle() waits for.
    call->work = nullptr;
    {
        const std::lock_guard lock(call->state->mutex);
        --call->state->calls;
    }
    call->state->finished.wake_all();
}

void ReactorGate::close() {
    const std::lock_guard lock(state_->mutex);
    state_->closed = true;
}

Task<void> ReactorGate::idle() {
    for (;;) {
        {
            const std::lock_guard lock(state_->mutex);
            if (state_->calls == 0) co_return;
        }
        co_await state_->finished.wait();
    }
}

}  // namespace pf::net
