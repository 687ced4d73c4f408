// What the uring tests share: a small reactor and files that remove themselves.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "runtime/uring/uring_reactor.hpp"

// Ends the coroutine with a test failure: gtest's ASSERT returns, which a coroutine cannot.
#define CO_ASSERT(condition)             \
    do {                                 \
        if (!(condition)) {              \
            ADD_FAILURE() << #condition; \
            co_return;                   \
        }                                \
    } while (false)

namespace pf::runtime {

inline UringOptions small_options() {
    UringOptions options;
    options.ring_entries = 64;
    options.buffer_arena_bytes = size_t{8} << 20;
    return options;
}

class TestReactor {
  public:
    explicit TestReactor(const UringOptions& options = small_options()) {
        auto made = UringReactor::create(options);
        if (!made) {
            ADD_FAILURE() << made.error().text();
            std::abort();
        }
        reactor_ = std::move(*made);
    }
    UringReactor& operator*() { return *reactor_; }
    UringReactor* operator->() { return reactor_.get(); }

    // Runs `body(reactor)`, a Task<void>, to its end.
    template <class Body>
    void run(Body body) {
        reactor_->spawn(run_and_stop(body));
        reactor_->run();
    }

  private:
    template <class Body>
    Task<void> run_and_stop(Body& body) {
        auto task = body(*reactor_);
        co_await task;
        reactor_->stop();
    }
    std::unique_ptr<UringReactor> reactor_;
};

// A path that does not exist yet, in a directory that supports direct I/O.
class TestPath {
  public:
    explicit TestPath(const std::string& directory = ".") {
        std::string pattern = directory + "/uring_test.XXXXXX";
        const int fd = ::mkstemp(pattern.data());
        if (fd >= 0) ::close(fd);
        ::unlink(pattern.c_str());
        path_ = pattern;
    }
    TestPath(const TestPath&) = delete;
    TestPath& operator=(const TestPath&) = delete;
    ~TestPath() { ::unlink(path_.c_str()); }
    [[nodiscard]] const std::string& text() const { return path_; }

  private:
    std::string path_;
};

}  // namespace pf::runtime
