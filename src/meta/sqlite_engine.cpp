#include "meta/sqlite_engine.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <variant>

#include "base/log.hpp"
#include "meta/sqlite_file.hpp"

namespace pf::meta {

using runtime::Task;

namespace {

constexpr size_t max_queued = 1024;
constexpr size_t max_batch = 64;  // commits that share one fsync

struct ReadList {
    std::string prefix;
    std::string after;
    uint32_t limit = 0;
};

// One request. The worker and the reactor hold it by turns; if its coroutine goes away meanwhile,
// `waiter` is cleared and nobody is resumed.
struct Job : runtime::PostedCall {
    std::variant<Transaction, std::string, ReadList> request;
    std::variant<std::monostate, Result<Version>, Result<Entry>, Result<EntryList>> result;
    std::coroutine_handle<> waiter;
    runtime::WaitGroup* in_flight = nullptr;
    std::shared_ptr<Job> self;  // held while the worker or the post queue has it
};

void job_finished(runtime::PostedCall& call) {
    const std::shared_ptr<Job> job = std::move(static_cast<Job&>(call).self);
    job->in_flight->done();
    if (job->waiter) runtime::schedule(job->waiter);
}

struct JobAwaiter {
    explicit JobAwaiter(Job& job) : job_(job) {}
    JobAwaiter(const JobAwaiter&) = delete;
    JobAwaiter& operator=(const JobAwaiter&) = delete;
    ~JobAwaiter() { job_.waiter = nullptr; }
    bool await_ready() const noexcept { return job_.self == nullptr; }
    void await_suspend(std::coroutine_handle<> handle) { job_.waiter = handle; }
    void await_resume() const noexcept {}
    Job& job_;
};

}  // namespace

class SqliteEngine::Worker {
  public:
    Worker(runtime::Reactor& reactor, std::unique_ptr<SqliteFile> file)
        : reactor_(reactor), file_(std::move(file)), thread_([this] { run(); }) {}
    ~Worker() {
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_one();
        thread_.join();
    }

    // On the reactor.
    bool submit(const std::shared_ptr<Job>& job) {
        if (in_flight_.count() >= max_queued) return false;
        in_flight_.add();
        job->run = &job_finished;
        job->in_flight = &in_flight_;
        job->self = job;
        {
            const std::lock_guard lock(mutex_);
            queue_.push_back(job.get());
        }
        wake_.notify_one();
        return true;
    }
    [[nodiscard]] Task<void> idle() { co_await in_flight_.wait(); }

  private:
    void run() {
        std::deque<Job*> batch;
        while (take(batch)) {
            run_batch(batch);
            for (Job* job : batch) reactor_.post(*job);
            batch.clear();
        }
    }

    bool take(std::deque<Job*>& batch) {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        while (!queue_.empty() && batch.size() < max_batch) {
            batch.push_back(queue_.front());
            queue_.pop_front();
        }
        return !batch.empty();
    }

    void run_batch(std::deque<Job*>& batch) {
        bool writes = false;
        for (const Job* job : batch) writes |= std::holds_alternative<Transaction>(job->request);
        Status status;
        if (writes) status = file_->begin();
        for (Job* job : batch) {
            if (status) status = run_job(*job);
        }
        if (writes && status) status = file_->commit();
        if (status) {
            if (writes) said_.clear();
            return;
        }
        // An error of the file fails the whole batch: what was applied before it is rolled back.
        if (status.error().text() != said_) log_error("metadata file: {}", status.error().text());
        said_ = status.error().text();
        file_->rollback();
        for (Job* job : batch) fail_job(*job, status.error());
    }

    // A refusal (conflict, not found) is a result; only an error of the file is returned.
    Status run_job(Job& job) {
        if (const auto* transaction = std::get_if<Transaction>(&job.request)) {
            return keep(job, file_->apply(*transaction));
        }
        if (const auto* key = std::get_if<std::string>(&job.request)) {
            return keep(job, file_->get(*key));
        }
        const auto& read = std::get<ReadList>(job.request);
        return keep(job, file_->list(read.prefix, read.after, read.limit));
    }

    template <class T>
    static Status keep(Job& job, Result<T> result) {
        Status status;
        if (!result && result.error().code != Errc::conflict &&
            result.error().code != Errc::not_found) {
            status = std::unexpected<Error>(result.error());
        }
        job.result = std::move(result);
        return status;
    }

    static void fail_job(Job& job, const Error& error) {
        if (std::holds_alternative<Transaction>(job.request)) {
            job.result = Result<Version>(std::unexpected<Error>(error));
        } else if (std::holds_alternative<std::string>(job.request)) {
            job.result = Result<Entry>(std::unexpected<Error>(error));
        } else {
            job.result = Result<EntryList>(std::unexpected<Error>(error));
        }
    }

    runtime::Reactor& reactor_;
    std::unique_ptr<SqliteFile> file_;
    std::string said_;  // the error that was logged last: what fails is often tried again
    runtime::WaitGroup in_flight_;  // the reactor's
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Job*> queue_;
    bool stopping_ = false;
    std::thread thread_;
};

Result<std::unique_ptr<SqliteEngine>> SqliteEngine::open(runtime::Reactor& reactor,
                                                         const std::string& path) {
    PF_TRY_ASSIGN(auto file, SqliteFile::open(path));
    auto worker = std::make_unique<Worker>(reactor, std::move(file));
    return std::unique_ptr<SqliteEngine>(new SqliteEngine(reactor, std::move(worker)));
}

SqliteEngine::SqliteEngine(runtime::Reactor& reactor, std::unique_ptr<Worker> worker)
    : EmbeddedEngine(reactor), worker_(std::move(worker)) {}

SqliteEngine::~SqliteEngine() = default;

Task<void> SqliteEngine::close() {
    co_await EmbeddedEngine::close();
    co_await worker_->idle();
}

Task<Result<Version>> SqliteEngine::apply(Transaction transaction) {
    const auto job = std::make_shared<Job>();
    job->request = std::move(transaction);
    if (!worker_->submit(job)) co_return fail(Errc::resource_exhausted, "metadata queue is full");
    JobAwaiter done(*job);
    co_await done;
    co_return std::move(std::get<Result<Version>>(job->result));
}

Task<Result<Entry>> SqliteEngine::get(std::string key) {
    const auto job = std::make_shared<Job>();
    job->request = std::move(key);
    if (!worker_->submit(job)) co_return fail(Errc::resource_exhausted, "metadata queue is full");
    JobAwaiter done(*job);
    co_await done;
    co_return std::move(std::get<Result<Entry>>(job->result));
}

Task<Result<EntryList>> SqliteEngine::read(std::string prefix, std::string after, uint32_t limit) {
    const auto job = std::make_shared<Job>();
    job->request = ReadList{std::move(prefix), std::move(after), limit};
    if (!worker_->submit(job)) co_return fail(Errc::resource_exhausted, "metadata queue is full");
    JobAwaiter done(*job);
    co_await done;
    co_return std::move(std::get<Result<EntryList>>(job->result));
}

}  // namespace pf::meta
