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

    // Asked often while an answer is waited for, and no longer once it gives false. This must
    // outlive the process's I/O then.
    void wait_while(std::function<bool()> go_on) { go_on_ = std::move(go_on); }
    // A question to a volume is under way.
    [[nodiscard]] bool asking() const { return !answer_.done; }

  private:
    struct Answer {
        int status = 0;
        bool done = true;
    };
    [[nodiscard]] Status ask_volume(uint64_t offset);

    Endpoint& endpoint_;
    Cluster& cluster_;
    std::function<bool()> go_on_ = [] { return true; };
    Answer answer_;  // an abandoned question still writes to these three
    uint32_t extent_count_ = 0;
    std::vector<pfbd_extent> extents_;  // of a volume, from `known_from_` on
    uint64_t known_from_ = 0;
    uint64_t known_to_ = 0;
};

}  // namespace pf::tools
