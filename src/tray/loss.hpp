// T7: what a mount does about log blocks that were durable and are gone. Which shards they were
// about is known from the block behind (ShardFilter), or not at all: then it may be any shard that
// existed. These are marked as damaged; the marks become durable with the mount's own checkpoint,
// before anything is served (T1), and stay until an operator accepts the loss.
//
// The records behind a lost block are applied all the same. One that does not fit what is there
// needed what was lost, so its shard is damaged too.
#pragma once

#include <set>
#include <string>

#include "tray/log_reader.hpp"
#include "tray/map.hpp"

namespace pf::tray {

class Loss {
  public:
    explicit Loss(Map& map) : map_(map) {}

    // The replay has come to this block. Shards that are made by later records lost nothing.
    void add(const LogReader::Lost& lost);
    [[nodiscard]] bool any() const { return blocks_ > 0; }
    // A record behind a lost block did not fit. False if that is no consequence of the loss.
    [[nodiscard]] bool take_misfit(const Record& record, const Error& error);
    // Behind the last record.
    void finish();
    // What happened, for people; empty if nothing did.
    [[nodiscard]] std::string message() const;

  private:
    void mark(Shard& shard);

    Map& map_;
    uint64_t blocks_ = 0;
    uint64_t first_ = 0;
    uint64_t last_ = 0;
    uint64_t misfits_ = 0;
    std::set<ShardId> marked_;
};

}  // namespace pf::tray
