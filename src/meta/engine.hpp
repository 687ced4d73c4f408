// The metadata engine: a small ordered key-value store with transactions, which keeps everything
// the cluster must remember. Engines: memory (simulator, tests), sqlite (one node); etcd and
// ZooKeeper are meant to fit behind the same calls.
//
// Versions: the store has one revision, which grows with every transaction that changes something.
// A key's version is the revision that last wrote it; 0 means that there is no such key.
// Durability: a commit that returned a revision survives any crash of the process or the machine. A
// commit that fails with `conflict` or `invalid_argument` changed nothing; after `timed_out`,
// `io_error` or `unavailable` the outcome is unknown, read before deciding.
// Threads: called on the reactor the engine was made for.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "runtime/task.hpp"
#include "runtime/timer.hpp"

namespace pf::meta {

using Version = uint64_t;
using LeaseId = uint64_t;  // 0: none

struct Limits {
    uint32_t max_operations = 128;              // compares plus changes of one transaction
    uint64_t max_transaction_bytes = 1u << 20;  // keys and values of one transaction
    uint32_t max_key_bytes = 512;
    uint32_t max_list_entries = 1024;
};

struct Entry {
    std::string key;
    std::string value;
    Version version = 0;
};

struct Compare {
    std::string key;
    Version version = 0;  // 0: the key must not exist
};

struct Change {
    enum class Kind : uint8_t { put, remove };
    Kind kind = Kind::put;
    std::string key;
    std::string value;
    LeaseId lease = 0;  // of a put: the key goes when the lease ends
};

// All compares hold and all changes happen, or nothing does. One key is changed at most once.
struct Transaction {
    std::vector<Compare> compares;
    std::vector<Change> changes;

    Transaction& expect(std::string key, Version version) {
        compares.push_back({std::move(key), version});
        return *this;
    }
    Transaction& put(std::string key, std::string value, LeaseId lease = 0) {
        changes.push_back({Change::Kind::put, std::move(key), std::move(value), lease});
        return *this;
    }
    // Removing a key that is not there is no error.
    Transaction& remove(std::string key) {
        changes.push_back({Change::Kind::remove, std::move(key), {}, 0});
        return *this;
    }
};

struct EntryList {
    std::vector<Entry> entries;  // in byte order of their keys
    bool more = false;
};

struct WatchEvent {
    std::string key;
    std::string value;    // empty for a removal
    Version version = 0;  // 0: removed
    Version revision = 0;
};

// Changes under a prefix, in commit order, from the moment the watch was made. Bounded: a reader
// that falls too far behind gets `resource_exhausted` once and has to list again.
class Watch {
  public:
    static constexpr size_t max_queued_events = 4096;
    virtual ~Watch() = default;
    // Waits for at least one event; `cancelled` when the engine closes.
    [[nodiscard]] virtual runtime::Task<Result<std::vector<WatchEvent>>> next() = 0;
};

// Being the one leader of a name. Put `guard` into every transaction that only a leader may make: a
// leader that was replaced without noticing then changes nothing.
struct Leadership {
    Compare guard;
    LeaseId lease = 0;  // keep it alive; when it ends, so does the leadership
};

class Engine {
  public:
    virtual ~Engine() = default;

    [[nodiscard]] virtual const Limits& limits() const = 0;

    // The revision of the commit. Errors: conflict (a compare failed), invalid_argument (over a
    // limit), io_error.
    [[nodiscard]] virtual runtime::Task<Result<Version>> commit(Transaction transaction) = 0;
    // not_found when there is no such key.
    [[nodiscard]] virtual runtime::Task<Result<Entry>> get(std::string key) = 0;
    // Keys that begin with `prefix` and come after `after` (empty: from the first), at most
    // `limit`.
    [[nodiscard]] virtual runtime::Task<Result<EntryList>> list(std::string prefix,
                                                                std::string after,
                                                                uint32_t limit) = 0;

    [[nodiscard]] virtual std::unique_ptr<Watch> watch(std::string prefix) = 0;

    // A lease ends `ttl` after it was granted or last kept alive; its keys are removed then.
    [[nodiscard]] virtual runtime::Task<Result<LeaseId>> grant_lease(runtime::Nanos ttl) = 0;
    [[nodiscard]] virtual runtime::Task<Status> keep_alive(LeaseId lease) = 0;
    [[nodiscard]] virtual runtime::Task<Status> revoke_lease(LeaseId lease) = 0;

    // Waits until this one leads `name`; `identity` is for people.
    [[nodiscard]] virtual runtime::Task<Result<Leadership>> campaign(std::string name,
                                                                     std::string identity,
                                                                     runtime::Nanos ttl) = 0;

    // Ends watches and campaigns with `cancelled` and waits for everything under way. Call it
    // before the engine is destroyed.
    [[nodiscard]] virtual runtime::Task<void> close() = 0;
};

}  // namespace pf::meta
