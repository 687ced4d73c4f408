#include "meta/embedded_engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <set>

#include "base/log.hpp"

namespace pf::meta {

using runtime::Task;

class EmbeddedEngine::WatchQueue : public Watch {
  public:
    WatchQueue(EmbeddedEngine& engine, std::string prefix)
        : engine_(&engine), prefix_(std::move(prefix)) {
        engine.watches_.push_back(this);
    }
    ~WatchQueue() override {
        if (engine_ != nullptr) engine_->watches_.remove(this);
    }

    void push(const WatchEvent& event) {
        if (overflowed_ || !event.key.starts_with(prefix_)) return;
        if (events_.size() == max_queued_events) {
            events_.clear();
            overflowed_ = true;
        } else {
            events_.push_back(event);
        }
        ready_.wake_all();
    }
    void end() {
        engine_ = nullptr;
        ready_.wake_all();
    }

    Task<Result<std::vector<WatchEvent>>> next() override {
        while (engine_ != nullptr && events_.empty() && !overflowed_) co_await ready_.wait();
        if (engine_ == nullptr) co_return fail(Errc::cancelled);
        if (overflowed_) {
            overflowed_ = false;
            co_return fail(Errc::resource_exhausted, "the watch fell behind: list again");
        }
        std::vector<WatchEvent> out(events_.begin(), events_.end());
        events_.clear();
        co_return out;
    }

  private:
    EmbeddedEngine* engine_;
    std::string prefix_;
    std::deque<WatchEvent> events_;
    bool overflowed_ = false;
    runtime::WaitQueue ready_;
};

EmbeddedEngine::~EmbeddedEngine() {
    for (auto* watch : std::list<WatchQueue*>(watches_)) watch->end();
}

Status EmbeddedEngine::check(const Transaction& transaction) const {
    const size_t operations = transaction.compares.size() + transaction.changes.size();
    if (operations == 0 || operations > limits_.max_operations) {
        return fail(Errc::invalid_argument, fmt::format("a transaction of {} operations: 1 to {}",
                                                        operations, limits_.max_operations));
    }
    uint64_t bytes = 0;
    std::set<std::string_view> changed;
    for (const auto& compare : transaction.compares) bytes += compare.key.size();
    for (const auto& change : transaction.changes) {
        bytes += change.key.size() + change.value.size();
        if (change.key.empty() || change.key.size() > limits_.max_key_bytes) {
            return fail(Errc::invalid_argument,
                        fmt::format("a key of {} bytes: 1 to {}", change.key.size(),
                                    limits_.max_key_bytes));
        }
        if (!changed.insert(change.key).second) {
            return fail(Errc::invalid_argument,
                        fmt::format("a transaction changes '{}' twice", change.key));
        }
        if (change.lease != 0 && !leases_.contains(change.lease)) {
            return fail(Errc::not_found, fmt::format("lease {} has ended", change.lease));
        }
    }
    if (bytes > limits_.max_transaction_bytes) {
        return fail(Errc::invalid_argument, fmt::format("a transaction of {} bytes: at most {}",
                                                        bytes, limits_.max_transaction_bytes));
    }
    return {};
}

Task<Result<Version>> EmbeddedEngine::commit(Transaction transaction) {
    if (closed_) co_return fail(Errc::cancelled);
    PF_CO_TRY(check(transaction));
    // Bound to their lease before they exist, so that a lease ending meanwhile takes them along.
    remember_leased(transaction);
    Transaction copy = transaction;
    Result<Version> revision = co_await apply(std::move(copy));
    if (revision && !transaction.changes.empty()) publish(transaction, *revision);
    co_return revision;
}

Task<Result<EntryList>> EmbeddedEngine::list(std::string prefix, std::string after,
                                             uint32_t limit) {
    if (closed_) co_return fail(Errc::cancelled);
    const uint32_t bounded = std::clamp(limit, 1u, limits_.max_list_entries);
    co_return co_await read(std::move(prefix), std::move(after), bounded);
}

void EmbeddedEngine::remember_leased(const Transaction& transaction) {
    for (const auto& change : transaction.changes) {
        if (change.lease != 0) leases_.at(change.lease)->keys.push_back(change.key);
    }
}

void EmbeddedEngine::publish(const Transaction& transaction, Version revision) {
    for (const auto& change : transaction.changes) {
        const bool put = change.kind == Change::Kind::put;
        const WatchEvent event{change.key, change.value, put ? revision : 0, revision};
        for (auto* watch : watches_) watch->push(event);
    }
}

std::unique_ptr<Watch> EmbeddedEngine::watch(std::string prefix) {
    return std::make_unique<WatchQueue>(*this, std::move(prefix));
}

void EmbeddedEngine::Lease::expired(runtime::Timer& timer) {
    auto& lease = static_cast<Lease&>(timer);
    lease.owner.reactor_.spawn(lease.owner.expire(lease.id));
}

Task<void> EmbeddedEngine::expire(LeaseId lease) {
    expiring_.add();
    const Status ended = co_await end_lease(lease);
    if (!ended) log_warning("the keys of an ended lease stay: {}", ended.error().text());
    expiring_.done();
}

Task<Status> EmbeddedEngine::end_lease(LeaseId lease) {
    const auto found = leases_.find(lease);
    if (found == leases_.end()) co_return fail(Errc::not_found, "the lease has ended");
    const std::vector<std::string> keys = std::move(found->second->keys);
    leases_.erase(found);
    for (size_t begin = 0; begin < keys.size(); begin += limits_.max_operations) {
        const size_t end = std::min<size_t>(keys.size(), begin + limits_.max_operations);
        const std::set<std::string> batch(keys.begin() + static_cast<ptrdiff_t>(begin),
                                          keys.begin() + static_cast<ptrdiff_t>(end));
        Transaction transaction;
        for (const auto& key : batch) transaction.remove(key);
        Transaction copy = transaction;
        const Result<Version> revision = co_await apply(std::move(copy));
        if (!revision) co_return std::unexpected<Error>(revision.error());
        publish(transaction, *revision);
    }
    lease_ended_.wake_all();
    co_return Status{};
}

Task<Result<LeaseId>> EmbeddedEngine::grant_lease(runtime::Nanos ttl) {
    if (closed_) co_return fail(Errc::cancelled);
    auto lease = std::make_unique<Lease>(*this);
    lease->id = next_lease_++;
    lease->ttl = ttl;
    reactor_.timers().arm(*lease, reactor_.now() + ttl);
    const LeaseId id = lease->id;
    leases_.emplace(id, std::move(lease));
    co_return id;
}

Task<Status> EmbeddedEngine::keep_alive(LeaseId lease) {
    const auto found = leases_.find(lease);
    if (found == leases_.end()) co_return fail(Errc::not_found, "the lease has ended");
    reactor_.timers().arm(*found->second, reactor_.now() + found->second->ttl);
    co_return Status{};
}

Task<Status> EmbeddedEngine::revoke_lease(LeaseId lease) {
    co_return co_await end_lease(lease);
}

Task<Result<Leadership>> EmbeddedEngine::campaign(std::string name, std::string identity,
                                                  runtime::Nanos ttl) {
    const std::string key = "leader/" + name;
    while (!closed_) {
        const Result<LeaseId> lease = co_await grant_lease(ttl);
        if (!lease) co_return std::unexpected<Error>(lease.error());
        Transaction transaction;
        transaction.expect(key, 0).put(key, identity, *lease);
        const Result<Version> version = co_await commit(std::move(transaction));
        if (version) {
            Leadership leadership;
            leadership.guard = {key, *version};
            leadership.lease = *lease;
            co_return leadership;
        }
        // Nothing of ours is under this lease: take the key off it, or its end removes the
        // leader's.
        if (const auto found = leases_.find(*lease); found != leases_.end()) leases_.erase(found);
        if (version.error().code != Errc::conflict) {
            co_return std::unexpected<Error>(version.error());
        }
        co_await lease_ended_.wait();
    }
    co_return fail(Errc::cancelled);
}

Task<void> EmbeddedEngine::close() {
    closed_ = true;
    leases_.clear();
    lease_ended_.wake_all();
    for (auto* watch : watches_) watch->end();
    watches_.clear();
    co_await expiring_.wait();
}

}  // namespace pf::meta
