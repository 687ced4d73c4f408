#include "runtime/uring/reactor_thread.hpp"

#include <fmt/format.h>

#include <system_error>

namespace pf::runtime {

Result<std::unique_ptr<ReactorGroup>> ReactorGroup::start(const std::vector<UringOptions>& each) {
    std::unique_ptr<ReactorGroup> group(new ReactorGroup);
    for (const UringOptions& own : each) {
        std::promise<Status> started;
        auto outcome = started.get_future();
        auto thread = std::make_unique<Thread>();
        try {
            thread->thread =
                std::thread(&ReactorGroup::run, std::ref(*thread), own, std::move(started));
        } catch (const std::system_error& error) {
            return fail(Errc::resource_exhausted,
                        fmt::format("cannot start a thread: {}", error.what()));
        }
        const Status status = outcome.get();
        if (!status) {
            thread->thread.join();
            return std::unexpected<Error>(status.error());
        }
        group->threads_.push_back(std::move(thread));
    }
    return group;
}

void ReactorGroup::run(Thread& thread, UringOptions options, std::promise<Status> started) {
    auto made = UringReactor::create(options);
    if (!made) {
        started.set_value(std::unexpected<Error>(std::move(made).error()));
        return;
    }
    thread.reactor = std::move(*made);
    started.set_value({});
    thread.reactor->run();
    thread.stopped.set_value();
    // The others must have stopped too before anything that they may point to goes away.
    thread.may_end.get_future().wait();
    thread.reactor.reset();
}

ReactorGroup::~ReactorGroup() {
    for (auto& thread : threads_) thread->reactor->stop();
    for (auto& thread : threads_) thread->stopped.get_future().wait();
    for (auto& thread : threads_) thread->may_end.set_value();
    for (auto& thread : threads_) thread->thread.join();
}

}  // namespace pf::runtime
