// What the conductor knows: a write-through copy of the metadata engine plus what is only true now
// (health, loads, open handles). Changed only by Core, on its reactor, after the engine has it.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/units.hpp"
#include "meta/engine.hpp"
#include "proto/control.pb.h"
#include "proto/rpc.pb.h"
#include "runtime/sync.hpp"

namespace pf::conductor {

namespace v1 = ::pureflash::v1;

// Shard states of a volume live in pages, so that a 1 PiB volume of 16,384 shards is 128 keys and
// every transaction stays within the engine's limits (R17).
inline constexpr uint32_t shards_per_page = 128;
inline constexpr uint32_t pages_per_transaction = 16;
inline constexpr uint32_t max_shards_per_volume = 1u << 16;
static_assert(max_shards_per_volume <= (1u << shard_index_bits));

struct Page {
    v1::ShardPage shards;
    meta::Version version = 0;
};

struct VolumeEntry {
    v1::Volume record;  // as persisted; health and open_handles are filled in when shown
    meta::Version version = 0;
    std::vector<Page> pages;
    uint32_t open_handles = 0;
    bool open_mark = false;     // persisted: it has open handles, or had some not long ago
    bool was_open = false;      // when an earlier conductor ended; its clients may still come back
    bool token_untold = false;  // R11: a store may not know the writer token yet
    // Held across the steps of anything that changes the volume.
    runtime::Mutex mutex;

    [[nodiscard]] uint32_t stored_shards() const;
    [[nodiscard]] v1::Shard& shard(uint32_t index);
    [[nodiscard]] const v1::Shard& shard(uint32_t index) const;
    [[nodiscard]] std::set<std::string> tray_uuids() const;
};

struct TrayEntry {
    v1::Tray record;
    meta::Version version = 0;
    bool refused = false;           // R16: what was reported last may not serve
    std::string said;               // why it was refused, as logged last
    bool mounted = false;           // as its store reported last
    uint64_t seen_incarnation = 0;  // reported last; persisted once its shards have new epochs
    std::set<uint64_t> raised;      // volumes whose shards have new epochs for that one
    uint32_t replicas = 0;          // placed here
    uint64_t promised_bytes = 0;    // the size of their shards
};

struct StoreEntry {
    v1::Store record;
    meta::Version version = 0;
    bool online = false;
    uint32_t adding = 0;        // trays that are being added
    uint64_t registration = 0;  // counts; ends what was begun for an earlier one
    runtime::Nanos last_heartbeat = 0;
    std::vector<v1::VolumeLoad> loads;
    std::set<std::string> reported;  // trays that its last registration or heartbeat named
};

struct Handle {
    uint64_t volume_id = 0;
    uint64_t session = 0;
    uint64_t connection = 0;
    bool read_only = false;
    std::string client;
};

struct Cluster {
    v1::Cluster record;
    std::map<uint64_t, std::shared_ptr<VolumeEntry>> volumes;
    std::map<std::string, uint64_t, std::less<>> names;  // 0: reserved while it is created
    std::map<uint32_t, StoreEntry> stores;
    std::map<std::string, TrayEntry, std::less<>> trays;
    std::map<uint64_t, Handle> handles;
    std::map<uint64_t, v1::Task> tasks;  // by volume

    [[nodiscard]] Result<std::shared_ptr<VolumeEntry>> find_volume(std::string_view name) const;
    [[nodiscard]] const StoreEntry* store_by_uuid(std::string_view uuid) const;
    [[nodiscard]] v1::Health tray_health(const TrayEntry& tray) const;
    // Its own store is there and has it mounted.
    [[nodiscard]] bool mounted_at_home(const TrayEntry& tray) const;
    // Does I/O, though something may be wrong: a damaged copy, or losses of some volumes.
    [[nodiscard]] bool tray_serves(const TrayEntry& tray) const;
    [[nodiscard]] v1::Health volume_health(const VolumeEntry& volume) const;
    // T7: its shards that may have lost writes and answer no I/O.
    [[nodiscard]] uint32_t lost_shards(const VolumeEntry& volume) const;
    [[nodiscard]] std::string loss_message(const v1::Tray& tray) const;
    // Why a tray is not reported, and what to do; empty if it is, or its store is away.
    [[nodiscard]] std::string absence_message(const TrayEntry& tray) const;
    // Which tray of the volume does not serve, and why; empty if all do.
    [[nodiscard]] std::string outage_message(const VolumeEntry& volume) const;
    // With health and open handles, as people see it.
    [[nodiscard]] v1::Volume show(const VolumeEntry& volume) const;
    [[nodiscard]] v1::Store show(const StoreEntry& store, runtime::Nanos now) const;
    [[nodiscard]] v1::Tray show(const TrayEntry& tray) const;
    // Adds the volume's shards from an index on to what their trays have, or takes them away.
    void count_replicas(const VolumeEntry& volume, uint32_t first_index, int direction);
    // Of a tray that was not known until now: volumes may have shards on it from before it was
    // forgotten.
    void count_replicas_of(TrayEntry& tray) const;
    // The store that the shards on the tray name, whatever the tray's record says; 0: it has none.
    [[nodiscard]] uint32_t home_of(const std::string& tray_uuid) const;
};

// Reads everything that was persisted.
[[nodiscard]] runtime::Task<Result<std::unique_ptr<Cluster>>> load_cluster(meta::Engine& engine);

}  // namespace pf::conductor
