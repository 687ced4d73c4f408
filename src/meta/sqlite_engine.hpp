// The embedded engine of one node: SQLite with a write-ahead log and synchronous=FULL. SQLite
// blocks, so it runs on a thread of its own outside the seam; requests reach it through one bounded
// queue and results come back by Reactor::post. Commits that wait together share one fsync.
//
// Opening takes an exclusive lock, which a second process is told about by name of the file.
#pragma once

#include "meta/embedded_engine.hpp"

namespace pf::meta {

class SqliteEngine : public EmbeddedEngine {
  public:
    // Blocks while it opens; called at start. Errors: busy (another process has it), corrupt,
    // unsupported_version, io_error.
    [[nodiscard]] static Result<std::unique_ptr<SqliteEngine>> open(runtime::Reactor& reactor,
                                                                    const std::string& path);
    ~SqliteEngine() override;

    [[nodiscard]] runtime::Task<Result<Entry>> get(std::string key) override;
    [[nodiscard]] runtime::Task<void> close() override;

  protected:
    [[nodiscard]] runtime::Task<Result<Version>> apply(Transaction transaction) override;
    [[nodiscard]] runtime::Task<Result<EntryList>> read(std::string prefix, std::string after,
                                                        uint32_t limit) override;

  private:
    class Worker;
    SqliteEngine(runtime::Reactor& reactor, std::unique_ptr<Worker> worker);
    std::unique_ptr<Worker> worker_;
};

}  // namespace pf::meta
