// The trays of one reactor of a store: mounted at start, added and removed later. One that cannot
// be mounted, or fails, is reported and leaves the others alone; it is never retried by itself.
//
// Thread rule: one reactor, the one that owns all these trays. Bounded: by the store, which has at
// most `max_trays` on all its reactors.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proto/control.pb.h"
#include "runtime/reactor.hpp"
#include "tray/tray.hpp"

namespace pf::pfs {

// T10: whether a completed write may be lost with the power. Only an operator may say that a file's
// are not.
using WriteCache = runtime::DiskOptions::Cache;
[[nodiscard]] Result<WriteCache> parse_write_cache(std::string_view name);
[[nodiscard]] std::string_view name_of(WriteCache cache);  // detect, volatile or none

// Where a tray was, for the next start. The id is zero if it was never mounted.
struct TrayPlace {
    std::string path;
    Uuid id;
    std::optional<WriteCache> write_cache = std::nullopt;  // nothing: as the store is set
};

struct TraySlot {
    std::string path;
    Uuid id;                           // known from its last mount even if it cannot be mounted
    std::unique_ptr<tray::Tray> tray;  // nullptr: could not be mounted, `problem` says why
    std::string problem;
    std::optional<WriteCache> write_cache = std::nullopt;

    // T7: volumes (shard id / 2^20) with the number of their damaged shards here.
    [[nodiscard]] std::map<uint64_t, uint32_t> lost() const;
    // What to say of these; empty if there are none.
    [[nodiscard]] std::string loss_message() const;
    [[nodiscard]] bool serves() const { return tray != nullptr && !tray->failed(); }
    // Without the store's id.
    [[nodiscard]] pureflash::v1::Tray describe() const;
};

struct AddTray {
    std::string path;
    uint64_t create_bytes = 0;  // make a file of this size if it is missing
    bool force = false;         // format over whatever is there
    bool mount_only = false;    // without `force` do not even format what looks blank
    std::optional<WriteCache> write_cache = std::nullopt;
    std::vector<Uuid> others;  // trays that the store has on other reactors
};

// Whether two paths name the same file or device.
[[nodiscard]] bool same_place(const std::string& path, const std::string& other);
// The tray whose superblock is at the path, whoever uses it now; reads only. not_found: none is.
[[nodiscard]] runtime::Task<Result<Uuid>> tray_at(std::string path);
// Whether the tray is not at its path any more. What is there and cannot be read may be it.
[[nodiscard]] runtime::Task<bool> has_left(TrayPlace place);

class TraySet {
  public:
    static constexpr size_t max_trays = 64;
    static constexpr runtime::Nanos busy_patience = 5 * runtime::seconds;

    TraySet(runtime::Reactor& reactor, tray::MountOptions mount,
            WriteCache write_cache = WriteCache::detect)
        : reactor_(reactor), mount_(mount), write_cache_(write_cache) {}

    void set_cluster(Uuid cluster) { mount_.cluster = cluster; }
    // Waits up to `busy_patience` for a disk that a process which just died still holds. Never
    // fails as a whole: what went wrong is in the slot.
    [[nodiscard]] runtime::Task<void> mount(TrayPlace place);
    // Keeps its place, and says why it is not mounted.
    void leave_unmounted(TrayPlace place, std::string problem);
    // Mounts the tray at the path, which may be the new one of a tray that has left its old one. A
    // blank disk is formatted first, but not one where a tray of this store was: that lost its
    // superblocks, and its volumes may still be rescued. Refuses what is mounted, in use (busy),
    // not blank, of another cluster (conflict) or damaged (corrupt) without `force`, and what is
    // too small.
    [[nodiscard]] runtime::Task<Result<TraySlot*>> add(AddTray request);
    // Stops the tray and lets go of its disk. The caller has retired its shards.
    [[nodiscard]] runtime::Task<Status> remove(Uuid id);
    [[nodiscard]] runtime::Task<void> stop();

    [[nodiscard]] TraySlot* find(const Uuid& id);
    [[nodiscard]] const std::vector<std::unique_ptr<TraySlot>>& slots() const { return slots_; }

  private:
    [[nodiscard]] TraySlot* find_path(const std::string& path);
    // The slot of a tray that is at this path now, and not at its own any more.
    [[nodiscard]] runtime::Task<TraySlot*> find_moved(std::string path);
    [[nodiscard]] runtime::Task<Result<std::unique_ptr<runtime::Disk>>> open_disk(
        std::string path, runtime::DiskOptions options, runtime::Nanos patience);
    // `others`: trays that must not be here, because the store has them on other reactors. `ours`:
    // whose tray may be.
    [[nodiscard]] runtime::Task<Result<std::unique_ptr<tray::Tray>>> open(
        std::string path, runtime::DiskOptions options, runtime::Nanos patience,
        std::vector<Uuid> others = {}, const TraySlot* ours = nullptr);
    [[nodiscard]] runtime::Task<Status> refuse_copy(runtime::Disk& disk, const std::string& path,
                                                    const std::vector<Uuid>& others,
                                                    const TraySlot* ours);
    [[nodiscard]] runtime::Task<Status> format(std::string path, runtime::DiskOptions options,
                                               bool force);
    [[nodiscard]] runtime::DiskOptions disk_options(std::optional<WriteCache> own) const;

    runtime::Reactor& reactor_;
    tray::MountOptions mount_;
    WriteCache write_cache_;  // where a tray has no setting of its own
    std::vector<std::unique_ptr<TraySlot>> slots_;
};

}  // namespace pf::pfs
