// What a start, of any daemon, is refused for before it makes or changes anything, and what it
// takes back when it fails later.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/uring/reactor_thread.hpp"
#include "store/tray_set.hpp"

namespace pf::tools {

// That each can be listened on now; `options` are those that choose them.
[[nodiscard]] Status check_ports(const std::vector<runtime::Address>& addresses,
                                 std::string_view options);

// Trays that are about to be added, by absolute paths.
struct TrayPlan {
    std::vector<std::string> paths;
    uint64_t create_bytes = 0;          // of files that do not exist; 0: they must
    std::optional<Uuid> cluster;        // zero: it is not made yet; nothing: not known
    std::vector<pfs::TrayPlace> known;  // that are served already
};
// That each is blank, or a tray of this cluster; reads only. On the reactor of that index.
[[nodiscard]] Status check_new_trays(runtime::ReactorGroup& group, size_t reactor,
                                     const TrayPlan& plan);

// What a start makes in a data folder that has nothing of ours, and of tray files that did not
// exist.
class NewFolder {
  public:
    explicit NewFolder(const std::string& path);
    // Under the folder's lock: what is there by now, another start made.
    void locked();
    void watch(const std::vector<std::string>& trays);
    // From now on others may rely on what is there.
    void keep() { kept_ = true; }
    // After a start that failed, under the folder's lock.
    void remove_what_was_made() const;

  private:
    std::string path_;
    bool has_none_ = false;  // of our own names
    bool kept_ = false;
    std::vector<std::string> missing_;  // folders, the deepest first
    std::vector<std::string> trays_;
};

}  // namespace pf::tools
