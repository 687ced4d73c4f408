#include "meta/sqlite_file.hpp"

#include <fmt/format.h>
#include <sqlite3.h>

#include "base/assert.hpp"

namespace pf::meta {

namespace {

constexpr int64_t file_format = 1;

// Resets a statement when a call is done with it, so that no read transaction stays open.
class Use {
  public:
    explicit Use(sqlite3_stmt* statement) : statement_(statement) {}
    ~Use() {
        sqlite3_reset(statement_);
        sqlite3_clear_bindings(statement_);
    }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

    void bind(int index, const std::string& bytes) {
        const int bound =
            sqlite3_bind_blob64(statement_, index, bytes.data(), bytes.size(), SQLITE_STATIC);
        PF_ASSERT(bound == SQLITE_OK);
    }
    void bind(int index, uint64_t number) {
        PF_ASSERT(sqlite3_bind_int64(statement_, index, static_cast<int64_t>(number)) == SQLITE_OK);
    }
    [[nodiscard]] int step() { return sqlite3_step(statement_); }
    [[nodiscard]] std::string bytes(int column) const {
        const auto* data = static_cast<const char*>(sqlite3_column_blob(statement_, column));
        const auto size = static_cast<size_t>(sqlite3_column_bytes(statement_, column));
        return data == nullptr ? std::string() : std::string(data, size);
    }
    [[nodiscard]] uint64_t number(int column) const {
        return static_cast<uint64_t>(sqlite3_column_int64(statement_, column));
    }

  private:
    sqlite3_stmt* statement_;
};

// The first key after all that begin with `prefix`.
std::string end_of_prefix(std::string prefix) {
    while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
    // Longer than any key: after everything.
    if (prefix.empty()) return std::string(Limits{}.max_key_bytes + 1, '\xff');
    ++prefix.back();
    return prefix;
}

}  // namespace

Result<std::unique_ptr<SqliteFile>> SqliteFile::open(const std::string& path) {
    sqlite3* database = nullptr;
    const int opened = sqlite3_open_v2(path.c_str(), &database,
                                       SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
    std::unique_ptr<SqliteFile> file(new SqliteFile(database));
    Status ready;
    if (opened != SQLITE_OK) {
        ready = std::unexpected<Error>(file->error("opening"));
    } else {
        ready = file->prepare();
    }
    if (!ready) {
        return fail(ready.error().code,
                    fmt::format("metadata file '{}': {}", path, ready.error().message));
    }
    return file;
}

SqliteFile::~SqliteFile() {
    for (auto* statement : {get_, put_, remove_, list_, save_revision_}) {
        sqlite3_finalize(statement);
    }
    sqlite3_close_v2(database_);
}

Error SqliteFile::error(const char* doing) const {
    const int code = sqlite3_errcode(database_);
    std::string message = fmt::format("{}: {}", doing, sqlite3_errmsg(database_));
    switch (code) {
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
            return {Errc::busy, message + "; another process has it open, stop that one first"};
        case SQLITE_FULL:
            return {Errc::no_space, fmt::format("{}; make room there: the metadata file is '{}'",
                                                message, sqlite3_db_filename(database_, "main"))};
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
            return {Errc::corrupt, std::move(message)};
        default:
            return {Errc::io_error, std::move(message)};
    }
}

Status SqliteFile::execute(const char* sql) {
    if (sqlite3_exec(database_, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return {};
    return std::unexpected<Error>(error(sql));
}

Status SqliteFile::prepare() {
    // The exclusive lock is taken by the first write and kept, also against other processes.
    PF_TRY(execute("PRAGMA locking_mode=EXCLUSIVE"));
    PF_TRY(execute("PRAGMA journal_mode=WAL"));
    PF_TRY(execute("PRAGMA synchronous=FULL"));
    PF_TRY(execute("BEGIN IMMEDIATE"));
    PF_TRY(
        execute("CREATE TABLE IF NOT EXISTS entries(key BLOB PRIMARY KEY, value BLOB NOT NULL, "
                "version INTEGER NOT NULL, lease INTEGER NOT NULL) WITHOUT ROWID"));
    PF_TRY(
        execute("CREATE TABLE IF NOT EXISTS state(name TEXT PRIMARY KEY, number INTEGER NOT "
                "NULL) WITHOUT ROWID"));
    PF_TRY(execute("INSERT OR IGNORE INTO state VALUES('format', 1), ('revision', 0)"));
    // Leases do not outlive the process that granted them.
    PF_TRY(execute("DELETE FROM entries WHERE lease != 0"));
    PF_TRY(check_format());
    PF_TRY(execute("COMMIT"));
    const auto make = [&](const char* sql, sqlite3_stmt** to) -> Status {
        if (sqlite3_prepare_v3(database_, sql, -1, SQLITE_PREPARE_PERSISTENT, to, nullptr) ==
            SQLITE_OK) {
            return {};
        }
        return std::unexpected<Error>(error(sql));
    };
    PF_TRY(make("SELECT value, version FROM entries WHERE key = ?1", &get_));
    PF_TRY(make("INSERT OR REPLACE INTO entries VALUES(?1, ?2, ?3, ?4)", &put_));
    PF_TRY(make("DELETE FROM entries WHERE key = ?1", &remove_));
    PF_TRY(
        make("SELECT key, value, version FROM entries WHERE key >= ?1 AND key > ?2 AND "
             "key < ?3 ORDER BY key LIMIT ?4",
             &list_));
    return make("UPDATE state SET number = ?1 WHERE name = 'revision'", &save_revision_);
}

Status SqliteFile::check_format() {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(database_, "SELECT number FROM state ORDER BY name", -1, &statement,
                           nullptr) != SQLITE_OK) {
        return std::unexpected<Error>(error("reading the format"));
    }
    int64_t numbers[2] = {0, 0};
    size_t rows = 0;
    while (rows < 2 && sqlite3_step(statement) == SQLITE_ROW) {
        numbers[rows++] = sqlite3_column_int64(statement, 0);
    }
    sqlite3_finalize(statement);
    if (rows != 2) return fail(Errc::corrupt, "format or revision is missing");
    if (numbers[0] != file_format) {
        return fail(Errc::unsupported_version,
                    fmt::format("format {} is not known, this build reads format {}", numbers[0],
                                file_format));
    }
    revision_ = durable_revision_ = static_cast<Version>(numbers[1]);
    return {};
}

Status SqliteFile::begin() {
    return execute("BEGIN IMMEDIATE");
}

Status SqliteFile::commit() {
    if (revision_ != durable_revision_) {
        Use use(save_revision_);
        use.bind(1, revision_);
        if (use.step() != SQLITE_DONE) return std::unexpected<Error>(error("saving the revision"));
    }
    PF_TRY(execute("COMMIT"));
    durable_revision_ = revision_;
    return {};
}

void SqliteFile::rollback() {
    // Without an open transaction this fails, which is what is wanted.
    sqlite3_exec(database_, "ROLLBACK", nullptr, nullptr, nullptr);
    revision_ = durable_revision_;
}

Result<Version> SqliteFile::version_of(const std::string& key) {
    Use use(get_);
    use.bind(1, key);
    const int stepped = use.step();
    if (stepped == SQLITE_DONE) return Version{0};
    if (stepped != SQLITE_ROW) return std::unexpected<Error>(error("comparing"));
    return use.number(1);
}

Status SqliteFile::put(const Change& change, Version revision) {
    Use use(put_);
    use.bind(1, change.key);
    use.bind(2, change.value);
    use.bind(3, revision);
    use.bind(4, change.lease);
    if (use.step() == SQLITE_DONE) return {};
    return std::unexpected<Error>(error("writing"));
}

Status SqliteFile::remove(const std::string& key) {
    Use use(remove_);
    use.bind(1, key);
    if (use.step() == SQLITE_DONE) return {};
    return std::unexpected<Error>(error("removing"));
}

Result<Version> SqliteFile::apply(const Transaction& transaction) {
    for (const auto& compare : transaction.compares) {
        PF_TRY_ASSIGN(const Version version, version_of(compare.key));
        if (version != compare.version) {
            return fail(Errc::conflict, fmt::format("'{}' has version {}, not {}", compare.key,
                                                    version, compare.version));
        }
    }
    if (transaction.changes.empty()) return revision_;
    const Version revision = ++revision_;
    for (const auto& change : transaction.changes) {
        if (change.kind == Change::Kind::put) {
            PF_TRY(put(change, revision));
        } else {
            PF_TRY(remove(change.key));
        }
    }
    return revision;
}

Result<Entry> SqliteFile::get(const std::string& key) {
    Use use(get_);
    use.bind(1, key);
    const int stepped = use.step();
    if (stepped == SQLITE_DONE) return fail(Errc::not_found);
    if (stepped != SQLITE_ROW) return std::unexpected<Error>(error("reading"));
    return Entry{key, use.bytes(0), use.number(1)};
}

Result<EntryList> SqliteFile::list(const std::string& prefix, const std::string& after,
                                   uint32_t limit) {
    Use use(list_);
    use.bind(1, prefix);
    use.bind(2, after);
    const std::string end = end_of_prefix(prefix);
    use.bind(3, end);
    use.bind(4, uint64_t{limit} + 1);
    EntryList out;
    int stepped = 0;
    while ((stepped = use.step()) == SQLITE_ROW) {
        if (out.entries.size() == limit) {
            out.more = true;
            return out;
        }
        out.entries.push_back({use.bytes(0), use.bytes(1), use.number(2)});
    }
    if (stepped != SQLITE_DONE) return std::unexpected<Error>(error("listing"));
    return out;
}

}  // namespace pf::meta
