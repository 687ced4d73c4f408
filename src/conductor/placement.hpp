// Where the replicas of new shards go. Pure: state in, decision or reason out.
#pragma once

#include "conductor/cluster.hpp"

namespace pf::conductor {

struct TrayChoice {
    std::string tray_uuid;
    uint32_t store_id = 0;
};

// For one volume's new shards, one after the other: the tray with the most room, which is what it
// has promised to nobody, or what is free if that is less; of those with the same room the one with
// the most free. Replicas of a shard go to different stores.
class Placement {
  public:
    explicit Placement(const Cluster& cluster);
    // Errors: invalid_argument (more replicas than stores), unavailable (no usable tray).
    [[nodiscard]] Result<std::vector<TrayChoice>> choose(uint32_t replicas, uint64_t shard_bytes);

  private:
    struct Candidate {
        TrayChoice tray;
        int64_t room_bytes = 0;  // negative once a thin tray is promised more than it has
        uint64_t free_bytes = 0;
        bool healthy = true;  // the others serve too, and are taken when there is none
    };
    std::vector<Candidate> candidates_;
    size_t store_count_;
};

// Whether a volume of so many replicas can be placed at all.
[[nodiscard]] Status check_replicas(const Cluster& cluster, uint32_t replicas);

}  // namespace pf::conductor
