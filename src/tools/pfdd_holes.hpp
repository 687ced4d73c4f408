// Where one side of a copy has nothing: holes of a sparse file, unmapped and zero ranges of a
// volume. Answers come from what was last asked for, so that a copy in order asks seldom.
//
// Thread rule: as Endpoint. While it asks a volume, other I/O of the copy completes too.
#pragma once

#include <pfbd.h>

#include <functional>
#include <vector>

#include "tools/pfdd_endpoint.hpp"

namespace pf::tools {

struct Run {
    uint64_t bytes = 0;
    bool hole = false;
};

class Holes {
  public:
    Holes(Endpoint& endpoint, Cluster& cluster) : endpoint_(endpoint), cluster_(cluster) {}

    // What begins at `offset`, of at most `limit` > 0 bytes. A side that cannot tell says data.
    [[nodiscard]] Result<Run> at(uint64_t offset, uint64_t limit);

    // An answer is not waited for once this gives true. This must outlive the process's I/O then.
    void give_up_when(std::function<bool()> give_up) { give_up_ = std::move(give_up); }

  private:
    struct Answer {
        int status = 0;
        bool done = false;
    };
    [[nodiscard]] Status ask_volume(uint64_t offset);

    Endpoint& endpoint_;
    Cluster& cluster_;
    std::function<bool()> give_up_ = [] { return false; };
    Answer answer_;  // an abandoned question still writes to these three
    uint32_t extent_count_ = 0;
    std::vector<pfbd_extent> extents_;  // of a volume, from `known_from_` on
    uint64_t known_from_ = 0;
    uint64_t known_to_ = 0;
};

}  // namespace pf::tools
