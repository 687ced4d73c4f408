// The cluster as the metadata engine has it, read once by whoever becomes the conductor.
#include <fmt/format.h>

#include <algorithm>

#include "conductor/cluster.hpp"
#include "conductor/keys.hpp"

namespace pf::conductor {

using runtime::Task;

namespace {

// A value that does not parse was not written by us: it is reported, never skipped.
template <class Message>
Result<Message> parse(const meta::Entry& entry) {
    Message message;
    if (message.ParseFromString(entry.value)) return message;
    return fail(Errc::corrupt, fmt::format("the metadata of '{}' cannot be read", entry.key));
}

Task<Result<std::vector<meta::Entry>>> list_all(meta::Engine& engine, std::string prefix) {
    std::vector<meta::Entry> out;
    std::string after;
    for (bool more = true; more;) {
        auto page = co_await engine.list(prefix, after, engine.limits().max_list_entries);
        if (!page) co_return std::unexpected<Error>(page.error());
        more = page->more && !page->entries.empty();
        for (auto& entry : page->entries) out.push_back(std::move(entry));
        if (more) after = out.back().key;
    }
    co_return out;
}

Status take_volumes(Cluster& cluster, const std::vector<meta::Entry>& entries) {
    for (const auto& entry : entries) {
        PF_TRY_ASSIGN(auto record, parse<v1::Volume>(entry));
        auto volume = std::make_shared<VolumeEntry>();
        volume->version = entry.version;
        const uint64_t id = record.id();
        if (!record.deleting()) cluster.names.emplace(record.name(), id);
        volume->record = std::move(record);
        cluster.volumes.emplace(id, std::move(volume));
    }
    return {};
}

Status take_pages(Cluster& cluster, const std::vector<meta::Entry>& entries) {
    for (const auto& entry : entries) {
        PF_TRY_ASSIGN(auto shards, parse<v1::ShardPage>(entry));
        const uint64_t id =
            shards.shards_size() == 0 ? 0 : shards.shards(0).id() >> shard_index_bits;
        const auto volume = cluster.volumes.find(id);
        if (volume == cluster.volumes.end() ||
            entry.key != keys::shard_page(id, volume->second->pages.size())) {
            return fail(Errc::corrupt,
                        fmt::format("the metadata has '{}' out of place", entry.key));
        }
        volume->second->pages.push_back({std::move(shards), entry.version});
    }
    return {};
}

Status take_stores(Cluster& cluster, const std::vector<meta::Entry>& entries) {
    for (const auto& entry : entries) {
        PF_TRY_ASSIGN(auto record, parse<v1::Store>(entry));
        StoreEntry& store = cluster.stores[record.id()];
        store.record = std::move(record);
        store.version = entry.version;
    }
    return {};
}

Status take_trays(Cluster& cluster, const std::vector<meta::Entry>& entries) {
    for (const auto& entry : entries) {
        PF_TRY_ASSIGN(auto record, parse<v1::Tray>(entry));
        TrayEntry& tray = cluster.trays[record.uuid()];
        tray.record = std::move(record);
        tray.version = entry.version;
        tray.seen_incarnation = tray.record.incarnation();
    }
    return {};
}

Status take_tasks(Cluster& cluster, const std::vector<meta::Entry>& entries) {
    for (const auto& entry : entries) {
        PF_TRY_ASSIGN(auto task, parse<v1::Task>(entry));
        const uint64_t id = task.volume_id();
        cluster.tasks.insert_or_assign(id, std::move(task));
    }
    return {};
}

Status take_open_marks(Cluster& cluster, const std::vector<meta::Entry>& entries) {
    for (const auto& [id, volume] : cluster.volumes) {
        const auto mark =
            std::ranges::lower_bound(entries, keys::open_mark(id), {}, &meta::Entry::key);
        volume->open_mark = mark != entries.end() && mark->key == keys::open_mark(id);
        volume->was_open = volume->open_mark;
    }
    return {};
}

}  // namespace

Task<Result<std::unique_ptr<Cluster>>> load_cluster(meta::Engine& engine) {
    auto cluster = std::make_unique<Cluster>();
    const Result<meta::Entry> record = co_await engine.get(std::string(keys::cluster));
    if (record) {
        PF_CO_TRY_ASSIGN(cluster->record, parse<v1::Cluster>(*record));
    } else if (record.error().code != Errc::not_found) {
        co_return std::unexpected<Error>(record.error());
    }
    using Take = Status (*)(Cluster&, const std::vector<meta::Entry>&);
    constexpr std::pair<std::string_view, Take> parts[] = {
        {keys::volumes, &take_volumes}, {keys::shards, &take_pages},
        {keys::stores, &take_stores},   {keys::trays, &take_trays},
        {keys::tasks, &take_tasks},     {keys::open_marks, &take_open_marks},
    };
    for (const auto& [prefix, take] : parts) {
        auto entries = co_await list_all(engine, std::string(prefix));
        if (!entries) co_return std::unexpected<Error>(entries.error());
        PF_CO_TRY(take(*cluster, *entries));
    }
    for (const auto& [id, volume] : cluster->volumes) cluster->count_replicas(*volume, 0, 1);
    co_return cluster;
}

}  // namespace pf::conductor
