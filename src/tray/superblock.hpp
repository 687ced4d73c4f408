// The two copies of the superblock: writing them at format, and reading around a damaged one.
#pragma once

#include <string>
#include <vector>

#include "runtime/reactor.hpp"
#include "tray/format.hpp"

namespace pf::tray {

[[nodiscard]] runtime::Task<Status> format_tray(runtime::Disk& disk, FormatOptions options);

class SuperblockReader {
  public:
    explicit SuperblockReader(runtime::Disk& disk) : disk_(disk) {}

    // not_found: no tray here; corrupt: both copies are damaged, or they disagree;
    // unsupported_version: a copy is of another version, or has a feature that is unknown here.
    [[nodiscard]] runtime::Task<Result<Superblock>> read();
    // Rewrites a damaged copy from the good one.
    [[nodiscard]] runtime::Task<Status> repair(const Superblock& superblock);
    [[nodiscard]] const std::vector<std::string>& warnings() const { return warnings_; }
    [[nodiscard]] bool damaged() const { return !damaged_.empty(); }

  private:
    [[nodiscard]] runtime::Task<Result<Superblock>> read_copy(Address address);
    // A root without a superblock: a tray that lost both copies, not a disk that never was one.
    [[nodiscard]] runtime::Task<bool> has_root();

    runtime::Disk& disk_;
    std::vector<std::string> warnings_;
    std::vector<Address> damaged_;
};

}  // namespace pf::tray
