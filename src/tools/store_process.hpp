// A store on reactor threads of its own, driven from main: what pfs and pureflash have in common.
#pragma once

#include <memory>
#include <string>

#include "runtime/uring/reactor_thread.hpp"
#include "store/store.hpp"
#include "tools/data_dir.hpp"

namespace pf::tools {

// The trays that the store in this folder had.
[[nodiscard]] Result<std::vector<pfs::TrayPlace>> known_trays(const DataDir& dir);

// Clients connect to the address that the conductor tells them: this host's, not any.
[[nodiscard]] Status check_data_address(const pfs::StoreOptions& options);

class StoreProcess {
  public:
    // On the group's reactors from `home` to the last. Fills identity, tray list and their saving
    // from the folder; `options` gives the rest. `group` and `dir` outlive this.
    [[nodiscard]] static Result<std::unique_ptr<StoreProcess>> start(runtime::ReactorGroup& group,
                                                                     size_t home,
                                                                     const DataDir& dir,
                                                                     pfs::StoreOptions options);
    StoreProcess(const StoreProcess&) = delete;
    StoreProcess& operator=(const StoreProcess&) = delete;
    ~StoreProcess();

    [[nodiscard]] bool has_tray(const std::string& path);
    [[nodiscard]] Status add_tray(const std::string& path, uint64_t create_bytes);
    void join();
    [[nodiscard]] bool registered();
    [[nodiscard]] std::string address();
    void stop();

    [[nodiscard]] runtime::Reactor& home() { return group_.reactor(home_); }
    // To be used on that reactor only.
    [[nodiscard]] const pfs::Store& store() const { return *store_; }
    // From a thread that is no reactor: runs there and waits.
    template <class Function>
    auto on_home(Function function) {
        return group_.call(home_, std::move(function));
    }

  private:
    StoreProcess(runtime::ReactorGroup& group, size_t home) : group_(group), home_(home) {}
    runtime::ReactorGroup& group_;
    size_t home_;
    std::unique_ptr<pfs::Store> store_;  // touched on its home reactor only
};

}  // namespace pf::tools
