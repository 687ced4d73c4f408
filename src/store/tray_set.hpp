// The trays of a store: mounted at start, added and removed later. One that cannot be mounted, or
// fails, is reported and leaves the others alone; it is never retried by itself.
//
// Thread rule: one reactor, the one that owns all these trays. Bounded: `max_trays`.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "proto/control.pb.h"
#include "runtime/reactor.hpp"
#include "tray/tray.hpp"

namespace pf::pfs {

// Where a tray was, for the next start. The id is zero if it was never mounted.
struct TrayPlace {
    std::string path;
    Uuid id;
};

struct TraySlot {
    std::string path;
    Uuid id;                           // known from its last mount even if it cannot be mounted
    std::unique_ptr<tray::Tray> tray;  // nullptr: could not be mounted, `problem` says why
    std::string problem;

    [[nodiscard]] bool serves() const { return tray != nullptr && !tray->failed(); }
    [[nodiscard]] pureflash::v1::Tray describe(uint32_t store_id) const;
};

struct AddTray {
    std::string path;
    uint64_t create_bytes = 0;  // make a file of this size if it is missing
    bool force = false;         // format over whatever is there
};

class TraySet {
  public:
    static constexpr size_t max_trays = 64;
    static constexpr runtime::Nanos busy_patience = 5 * runtime::seconds;

    TraySet(runtime::Reactor& reactor, tray::MountOptions mount)
        : reactor_(reactor), mount_(mount) {}

    void set_cluster(Uuid cluster) { mount_.cluster = cluster; }
    // Waits up to `busy_patience` for a disk that a process which just died still holds. Never
    // fails as a whole: what went wrong is in the slot.
    [[nodiscard]] runtime::Task<void> mount(TrayPlace place);
    // Mounts the tray at the path; a blank disk is formatted first. Refuses what is mounted, in use
    // (busy), not blank, of another cluster (conflict) or damaged (corrupt) without `force`, and
    // what is too small.
    [[nodiscard]] runtime::Task<Result<TraySlot*>> add(AddTray request);
    // Stops the tray and lets go of its disk. The caller has retired its shards.
    [[nodiscard]] runtime::Task<Status> remove(Uuid id);
    [[nodiscard]] runtime::Task<void> stop();

    [[nodiscard]] TraySlot* find(const Uuid& id);
    [[nodiscard]] const std::vector<std::unique_ptr<TraySlot>>& slots() const { return slots_; }
    [[nodiscard]] std::vector<TrayPlace> places() const;

  private:
    [[nodiscard]] TraySlot* find_path(const std::string& path);
    [[nodiscard]] runtime::Task<Result<std::unique_ptr<tray::Tray>>> open(std::string path,
                                                                          uint64_t create_bytes);
    [[nodiscard]] runtime::Task<Result<std::unique_ptr<tray::Tray>>> open_patiently(
        std::string path);
    [[nodiscard]] runtime::Task<Status> refuse_copy(runtime::Disk& disk, const std::string& path);
    [[nodiscard]] runtime::Task<Status> format(std::string path, bool force);

    runtime::Reactor& reactor_;
    tray::MountOptions mount_;
    std::vector<std::unique_ptr<TraySlot>> slots_;
};

}  // namespace pf::pfs
