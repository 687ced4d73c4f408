#include "meta/memory_engine.hpp"

#include <fmt/format.h>

namespace pf::meta {

using runtime::Task;

MemoryEngine::MemoryEngine(runtime::Reactor& reactor, MemoryStore& store, runtime::Nanos delay)
    : EmbeddedEngine(reactor), store_(store), delay_(delay) {
    std::erase_if(store_.entries, [](const auto& entry) { return entry.second.lease != 0; });
}

Task<Result<Version>> MemoryEngine::apply(Transaction transaction) {
    if (good_commits_left_ == 0) {
        good_commits_left_ = all_good;
        co_return fail(Errc::io_error, "this commit was to fail");
    }
    if (good_commits_left_ != all_good) --good_commits_left_;
    for (const auto& compare : transaction.compares) {
        const auto found = store_.entries.find(compare.key);
        const Version version = found == store_.entries.end() ? 0 : found->second.version;
        if (version != compare.version) {
            co_return fail(Errc::conflict, fmt::format("'{}' has version {}, not {}", compare.key,
                                                       version, compare.version));
        }
    }
    if (!transaction.changes.empty()) ++store_.revision;
    const Version revision = store_.revision;
    for (auto& change : transaction.changes) {
        if (change.kind == Change::Kind::remove) {
            store_.entries.erase(change.key);
            continue;
        }
        store_.entries.insert_or_assign(
            change.key, MemoryStore::Value{std::move(change.value), revision, change.lease});
    }
    co_await runtime::sleep_for(delay_);
    co_return revision;
}

Task<Result<Entry>> MemoryEngine::get(std::string key) {
    co_await runtime::sleep_for(delay_);
    const auto found = store_.entries.find(key);
    if (found == store_.entries.end()) co_return fail(Errc::not_found);
    co_return Entry{key, found->second.value, found->second.version};
}

Task<Result<EntryList>> MemoryEngine::read(std::string prefix, std::string after, uint32_t limit) {
    co_await runtime::sleep_for(delay_);
    EntryList out;
    auto at =
        after < prefix ? store_.entries.lower_bound(prefix) : store_.entries.upper_bound(after);
    for (; at != store_.entries.end() && at->first.starts_with(prefix); ++at) {
        if (out.entries.size() == limit) {
            out.more = true;
            break;
        }
        out.entries.push_back({at->first, at->second.value, at->second.version});
    }
    co_return out;
}

}  // namespace pf::meta
