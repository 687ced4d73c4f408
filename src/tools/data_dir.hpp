// The folder in which a daemon keeps its identity: one process at a time, and small files that are
// replaced whole and durably.
//
// Used by mains only, at start and for rare changes; it blocks.
#pragma once

#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/uuid.hpp"

namespace pf::tools {

class DataDir {
  public:
    // Makes the folder if it is missing and locks it. Errors: busy (another live process has it),
    // io_error.
    [[nodiscard]] static Result<DataDir> open(const std::string& path);
    DataDir(DataDir&& other) noexcept;
    DataDir& operator=(DataDir&&) = delete;
    ~DataDir();

    // Absolute.
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

    // The lines of a file; none if there is no such file.
    [[nodiscard]] Result<std::vector<std::string>> read_lines(const std::string& name) const;
    [[nodiscard]] Status write_lines(const std::string& name,
                                     const std::vector<std::string>& lines) const;

  private:
    DataDir(std::string path, int lock_fd) : path_(std::move(path)), lock_fd_(lock_fd) {}
    std::string path_;
    int lock_fd_;
};

// What a store is: made once, and told its cluster once.
struct StoreIdentity {
    Uuid id;
    Uuid cluster;  // zero: none yet
};
// Zeros if there is none.
[[nodiscard]] Result<StoreIdentity> read_identity(const DataDir& dir);
// Reads the identity, or makes a new one and keeps it.
[[nodiscard]] Result<StoreIdentity> load_identity(const DataDir& dir);
[[nodiscard]] Status save_identity(const DataDir& dir, const StoreIdentity& identity);

// A number from the system, to seed a reactor.
[[nodiscard]] uint64_t random_seed();

}  // namespace pf::tools
