// Calls to stores over the simulated network.
#include "conductor/net_store_link.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "runtime/sim/simulation.hpp"

namespace pf::conductor {
namespace {

using runtime::Task;

// Takes connections and says nothing.
Task<void> keep_silent(runtime::Listener& listener) {
    std::vector<std::unique_ptr<runtime::Connection>> all;
    for (;;) {
        auto accepted = co_await listener.accept();
        if (!accepted) co_return;
        all.push_back(std::move(*accepted));
    }
}

Task<void> call_and_note(StoreLink& link, std::vector<runtime::Nanos>& answered) {
    const auto reply = co_await link.call("store:7", {}, runtime::seconds);
    EXPECT_FALSE(reply);
    answered.push_back(runtime::Reactor::current().now());
}

Task<void> call_together(std::vector<runtime::Nanos>& answered, int calls) {
    NetStoreLink link;
    for (int i = 0; i < calls; ++i)
        runtime::Reactor::current().spawn(call_and_note(link, answered));
    co_await runtime::sleep_for(60 * runtime::seconds);
    co_await link.close();
}

// Each waited for the one before it, and then tried to connect as long itself.
TEST(NetStoreLink, regression_calls_share_an_attempt_to_connect) {
    runtime::sim::Simulation sim;
    auto& store = sim.add_node("store");
    auto& conductor = sim.add_node("conductor");
    store.start([](runtime::sim::SimReactor& reactor) {
        std::shared_ptr<runtime::Listener> listener = std::move(*reactor.listen({"", 7}));
        reactor.spawn(keep_silent(*listener));
        return listener;
    });
    conductor.start();
    std::vector<runtime::Nanos> answered;
    const runtime::Nanos begin = sim.now();
    ASSERT_TRUE(sim.run_task(conductor, call_together(answered, 6), 120 * runtime::seconds));
    ASSERT_EQ(answered.size(), 6u);
    EXPECT_LT(answered.back() - begin, 10 * runtime::seconds);
}

}  // namespace
}  // namespace pf::conductor
