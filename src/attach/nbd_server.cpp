#include "attach/nbd_server.hpp"

namespace pf::attach::nbd {

using runtime::Task;

namespace {

// Wakes a queue at a deadline.
class WakeTimer : public runtime::Timer {
  public:
    explicit WakeTimer(runtime::WaitQueue& queue) : Timer(&WakeTimer::fire), queue_(queue) {}

  private:
    static void fire(runtime::Timer& timer) { static_cast<WakeTimer&>(timer).queue_.wake_all(); }
    runtime::WaitQueue& queue_;
};

// Cuts the sessions that are left when the grace of a stop is over.
class CutTimer : public runtime::Timer {
  public:
    explicit CutTimer(List<Session>& sessions) : Timer(&CutTimer::fire), sessions_(sessions) {}

  private:
    static void fire(runtime::Timer& timer) {
        auto& sessions = static_cast<CutTimer&>(timer).sessions_;
        for (Session* one = sessions.front(); one != nullptr; one = sessions.next(*one)) one->cut();
    }
    List<Session>& sessions_;
};

}  // namespace

Server::Server(std::vector<Export> exports, ServerOptions options, Report report)
    : exports_(std::move(exports)),
      options_(options),
      report_(report),
      budgets_{Budget(options.small_payload_bytes), Budget(options.payload_bytes)} {
    PF_ASSERT(!exports_.empty());
}

void Server::start(std::unique_ptr<runtime::Listener> listener) {
    listener_ = std::move(listener);
    under_way_.add();
    runtime::Reactor::current().spawn(accept_loop());
}

Task<void> Server::stop(runtime::Nanos grace) {
    stopping_ = true;
    listener_->shut_down();
    for (Session* one = sessions_.front(); one != nullptr; one = sessions_.next(*one)) one->stop();
    CutTimer cut(sessions_);
    runtime::Reactor& reactor = runtime::Reactor::current();
    reactor.timers().arm(cut, reactor.now() + grace);
    co_await under_way_.wait();
}

Task<void> Server::accept_loop() {
    while (!stopping_) {
        auto connection = co_await listener_->accept();
        if (!connection) {
            if (stopping_ || connection.error().code == Errc::cancelled) break;
            // Out of descriptors, or the client left already: serve those who are here, then look
            // again.
            co_await runtime::sleep_for(100 * runtime::milliseconds);
            continue;
        }
        if (connections_ >= options_.max_connections || stopping_) {
            ++counters_.refused;
            (*connection)->shut_down();
            continue;
        }
        ++counters_.accepted;
        ++connections_;
        under_way_.add();
        runtime::Reactor::current().spawn(serve(std::move(*connection)));
    }
    under_way_.done();
}

Task<void> Server::serve(std::unique_ptr<runtime::Connection> connection) {
    const auto session =
        std::make_unique<Session>(std::move(connection), exports_, options_.session, budgets_);
    sessions_.push_back(*session);
    co_await await_refresh();
    Status ended{};
    if (stopping_) {
        session->cut();
    } else {
        ended = co_await session->run();
    }
    session->unlink();
    if (!ended) {
        ++counters_.protocol_errors;
        if (report_ != nullptr) report_(ended.error());
    }
    --connections_;
    under_way_.done();
}

// Waits for a refresh that began after now, so that a resize that was finished before the client
// connected is seen. Without a conductor the last known size is served: the data path goes on.
Task<void> Server::await_refresh() {
    runtime::Reactor& reactor = runtime::Reactor::current();
    const runtime::Nanos deadline = reactor.now() + options_.refresh_timeout;
    WakeTimer timer(refreshed_);
    reactor.timers().arm(timer, deadline);
    const uint64_t wanted = refreshes_started_ + 1;
    while (refreshes_ended_ < wanted && !stopping_) {
        if (refreshes_started_ == refreshes_ended_) {
            ++refreshes_started_;
            under_way_.add();
            reactor.spawn(refresh());
            continue;
        }
        co_await refreshed_.wait();
        if (reactor.now() >= deadline) break;
    }
}

Task<void> Server::refresh() {
    for (const Export& one : exports_) {
        // A failure leaves the size as it was last known.
        const Status refreshed = co_await one.volume->refresh();
        if (!refreshed && report_ != nullptr) report_(refreshed.error());
    }
    ++refreshes_ended_;
    refreshed_.wake_all();
    under_way_.done();
}

}  // namespace pf::attach::nbd
