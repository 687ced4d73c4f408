// The SQLite file itself: blocking calls, one thread at a time. The schema is in
// docs/formats/metadata.md.
#pragma once

#include <memory>

#include "meta/engine.hpp"

struct sqlite3;
struct sqlite3_stmt;

namespace pf::meta {

class SqliteFile {
  public:
    [[nodiscard]] static Result<std::unique_ptr<SqliteFile>> open(const std::string& path);
    ~SqliteFile();

    // Transactions between begin and commit become durable together, when commit returns. A
    // transaction whose compare fails leaves no trace among them.
    [[nodiscard]] Status begin();
    [[nodiscard]] Result<Version> apply(const Transaction& transaction);
    [[nodiscard]] Status commit();
    void rollback();

    [[nodiscard]] Result<Entry> get(const std::string& key);
    [[nodiscard]] Result<EntryList> list(const std::string& prefix, const std::string& after,
                                         uint32_t limit);

  private:
    explicit SqliteFile(sqlite3* database) : database_(database) {}
    [[nodiscard]] Status prepare();
    [[nodiscard]] Status execute(const char* sql);
    [[nodiscard]] Status check_format();
    [[nodiscard]] Error error(const char* doing) const;
    [[nodiscard]] Result<Version> version_of(const std::string& key);
    [[nodiscard]] Status put(const Change& change, Version revision);
    [[nodiscard]] Status remove(const std::string& key);

    sqlite3* database_;
    sqlite3_stmt* get_ = nullptr;
    sqlite3_stmt* put_ = nullptr;
    sqlite3_stmt* remove_ = nullptr;
    sqlite3_stmt* list_ = nullptr;
    sqlite3_stmt* save_revision_ = nullptr;
    Version revision_ = 0;
    Version durable_revision_ = 0;
};

}  // namespace pf::meta
