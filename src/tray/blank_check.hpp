// Whether a disk may be formatted without force: it holds no tray, and nothing else that we can
// see.
#pragma once

#include "runtime/reactor.hpp"

namespace pf::tray {

// Looks at the first 4 MiB and the last MiB, where filesystems, volume managers, RAID and partition
// tables have their marks, and at 63 blocks spread evenly, so that any written stretch longer than
// a 64th of the disk is seen as well. Reads only.
// already_exists: a tray, or anything that is not zero; or the disk's error.
[[nodiscard]] runtime::Task<Status> refuse_if_used(runtime::Disk& disk);

}  // namespace pf::tray
