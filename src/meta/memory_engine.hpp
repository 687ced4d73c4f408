// A deterministic engine in memory, for the simulator and for tests. The store outlives the engine
// over it, as a disk outlives a process: what was committed is there after a simulated restart.
#pragma once

#include <map>

#include "meta/embedded_engine.hpp"

namespace pf::meta {

struct MemoryStore {
    struct Value {
        std::string value;
        Version version = 0;
        LeaseId lease = 0;
    };
    std::map<std::string, Value, std::less<>> entries;
    Version revision = 0;
};

class MemoryEngine : public EmbeddedEngine {
  public:
    // Each commit and read takes `delay`, so that a crash can fall between its start and its end;
    // what a commit changes is changed at its beginning.
    MemoryEngine(runtime::Reactor& reactor, MemoryStore& store, runtime::Nanos delay = 0);

    [[nodiscard]] runtime::Task<Result<Entry>> get(std::string key) override;

    // One commit fails and changes nothing: the one after `count` that succeed.
    void fail_commit_after(uint32_t count) { good_commits_left_ = count; }
    [[nodiscard]] bool failure_pending() const { return good_commits_left_ != all_good; }

  protected:
    [[nodiscard]] runtime::Task<Result<Version>> apply(Transaction transaction) override;
    [[nodiscard]] runtime::Task<Result<EntryList>> read(std::string prefix, std::string after,
                                                        uint32_t limit) override;

  private:
    MemoryStore& store_;
    runtime::Nanos delay_;
    static constexpr uint32_t all_good = UINT32_MAX;
    uint32_t good_commits_left_ = all_good;
};

}  // namespace pf::meta
