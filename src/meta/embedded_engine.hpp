// What engines that live inside one process share: limits, watches, leases and leader election over
// an implementation's plain transactions. Leases run on the reactor's timers and do not outlive the
// process: an implementation removes leased keys when it opens.
#pragma once

#include <list>
#include <map>

#include "meta/engine.hpp"
#include "runtime/reactor.hpp"
#include "runtime/sync.hpp"

namespace pf::meta {

class EmbeddedEngine : public Engine {
  public:
    explicit EmbeddedEngine(runtime::Reactor& reactor) : reactor_(reactor) {}
    ~EmbeddedEngine() override;

    [[nodiscard]] const Limits& limits() const override { return limits_; }
    [[nodiscard]] runtime::Task<Result<Version>> commit(Transaction transaction) override;
    [[nodiscard]] runtime::Task<Result<EntryList>> list(std::string prefix, std::string after,
                                                        uint32_t limit) override;
    [[nodiscard]] std::unique_ptr<Watch> watch(std::string prefix) override;
    [[nodiscard]] runtime::Task<Result<LeaseId>> grant_lease(runtime::Nanos ttl) override;
    [[nodiscard]] runtime::Task<Status> keep_alive(LeaseId lease) override;
    [[nodiscard]] runtime::Task<Status> revoke_lease(LeaseId lease) override;
    [[nodiscard]] runtime::Task<Result<Leadership>> campaign(std::string name, std::string identity,
                                                             runtime::Nanos ttl) override;
    [[nodiscard]] runtime::Task<void> close() override;

  protected:
    [[nodiscard]] virtual runtime::Task<Result<Version>> apply(Transaction transaction) = 0;
    [[nodiscard]] virtual runtime::Task<Result<EntryList>> read(std::string prefix,
                                                                std::string after,
                                                                uint32_t limit) = 0;
    [[nodiscard]] runtime::Reactor& reactor() { return reactor_; }

  private:
    class WatchQueue;
    struct Lease : runtime::Timer {
        explicit Lease(EmbeddedEngine& engine) : Timer(&Lease::expired), owner(engine) {}
        static void expired(runtime::Timer& timer);
        EmbeddedEngine& owner;
        LeaseId id = 0;
        runtime::Nanos ttl = 0;
        std::vector<std::string> keys;
    };

    [[nodiscard]] Status check(const Transaction& transaction) const;
    void remember_leased(const Transaction& transaction);
    void publish(const Transaction& transaction, Version revision);
    [[nodiscard]] runtime::Task<Status> end_lease(LeaseId lease);
    [[nodiscard]] runtime::Task<void> expire(LeaseId lease);

    runtime::Reactor& reactor_;
    Limits limits_;
    std::list<WatchQueue*> watches_;
    std::map<LeaseId, std::unique_ptr<Lease>> leases_;
    LeaseId next_lease_ = 1;
    bool closed_ = false;
    runtime::WaitQueue lease_ended_;
    runtime::WaitGroup expiring_;
};

}  // namespace pf::meta
