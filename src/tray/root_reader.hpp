// Reads the two root slots and picks the newer (T9).
#pragma once

#include <string>
#include <vector>

#include "runtime/reactor.hpp"
#include "tray/format.hpp"

namespace pf::tray {

class RootReader {
  public:
    RootReader(runtime::Disk& disk, const Superblock& superblock)
        : disk_(disk), superblock_(superblock) {}
    // corrupt: no slot is usable; unsupported_version: one is another version's. A single damaged
    // slot is a warning: a log that is newer than the root found tells when the damaged one was
    // needed.
    [[nodiscard]] runtime::Task<Result<Root>> read(std::vector<std::string>& warnings);

  private:
    runtime::Disk& disk_;
    const Superblock& superblock_;
};

}  // namespace pf::tray
