// A reactor for tests of control-plane code: timers and posted calls, no disks, no network. In
// virtual time it jumps to the next timer when nothing else is to be done; in real time it waits.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

#include "runtime/reactor.hpp"

namespace pf::meta {

class TestReactor : public runtime::Reactor {
  public:
    enum class Time : uint8_t { real, jumping };
    explicit TestReactor(Time time = Time::real, uint64_t seed = 1) : Reactor(seed), time_(time) {}
    ~TestReactor() override { destroy_detached(); }

    [[nodiscard]] runtime::Nanos now() const override {
        if (time_ == Time::jumping) return virtual_now_;
        const auto elapsed = std::chrono::steady_clock::now().time_since_epoch();
        return static_cast<runtime::Nanos>(
            std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count());
    }
    [[nodiscard]] runtime::Nanos fresh_now() const override { return now(); }
    [[nodiscard]] runtime::Task<Result<std::unique_ptr<runtime::Disk>>> open_disk(
        std::string, runtime::DiskOptions) override {
        co_return fail(Errc::unsupported);
    }
    [[nodiscard]] Result<std::unique_ptr<runtime::Listener>> listen(
        const runtime::Address&) override {
        return fail(Errc::unsupported);
    }
    [[nodiscard]] runtime::Task<Result<std::unique_ptr<runtime::Connection>>> connect(
        runtime::Address, runtime::Nanos) override {
        co_return fail(Errc::unsupported);
    }
    void post(runtime::PostedCall& call) override {
        const std::lock_guard lock(mutex_);
        *tail_ = &call;
        call.next = nullptr;
        tail_ = &call.next;
        wake_.notify_one();
    }

    // Runs the loop until the task has finished.
    template <class T>
    T run(runtime::Task<T> task) {
        std::optional<T> result;
        spawn(store_result(std::move(task), result));
        loop([&] { return result.has_value(); });
        return std::move(*result);
    }
    void run(runtime::Task<void> task) {
        bool finished = false;
        spawn(note_end(std::move(task), finished));
        loop([&] { return finished; });
    }
    // Destroys everything that runs, as the end of a process does.
    void kill() { destroy_detached(); }
    // Lets time pass.
    void run_for(runtime::Nanos duration) { run(sleep(duration)); }

    template <class Until>
    void loop(Until until) {
        while (!until()) {
            const bool busy = turn();
            if (!busy && !until()) wait();
        }
    }

  private:
    template <class T>
    static runtime::Task<void> store_result(runtime::Task<T> task, std::optional<T>& to) {
        to.emplace(co_await task);
    }
    static runtime::Task<void> note_end(runtime::Task<void> task, bool& finished) {
        co_await task;
        finished = true;
    }
    static runtime::Task<void> sleep(runtime::Nanos duration) {
        co_await runtime::sleep_for(duration);
    }

    bool turn() {
        {
            const Enter enter(*this);
            run_posted();
            timers().fire_due(now());
        }
        return run_ready();
    }
    void run_posted() {
        runtime::PostedCall* call = nullptr;
        {
            const std::lock_guard lock(mutex_);
            call = head_;
            head_ = nullptr;
            tail_ = &head_;
        }
        while (call != nullptr) {
            runtime::PostedCall* next = call->next;
            call->run(*call);
            call = next;
        }
    }
    void wait() {
        std::unique_lock lock(mutex_);
        if (head_ != nullptr) return;
        const runtime::Nanos deadline = timers().next_deadline();
        if (time_ == Time::jumping && deadline != runtime::never) {
            virtual_now_ = std::max(virtual_now_, deadline);
            return;
        }
        const runtime::Nanos longest = 100 * runtime::milliseconds;
        const runtime::Nanos left = deadline > now() ? deadline - now() : 0;
        wake_.wait_for(lock, std::chrono::nanoseconds(std::min(left, longest)));
    }

    Time time_;
    runtime::Nanos virtual_now_ = runtime::seconds;
    std::mutex mutex_;
    std::condition_variable wake_;
    runtime::PostedCall* head_ = nullptr;
    runtime::PostedCall** tail_ = &head_;
};

}  // namespace pf::meta
