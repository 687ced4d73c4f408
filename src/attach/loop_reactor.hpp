// A reactor for unit tests and fuzzing: one thread, virtual time, connections in memory, no disks.
// The other end of a connection is plain bytes: what the test sends, and what it got back.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "runtime/reactor.hpp"
#include "runtime/sync.hpp"

namespace pf::attach {

// Both directions of one connection, shared by the server's end and the test.
struct LoopPipe {
    std::vector<std::byte> to_server;
    size_t taken = 0;  // of to_server, by the server
    std::vector<std::byte> from_server;
    size_t receive_limit = SIZE_MAX;  // bytes that one receive gives at most
    bool client_closed = false;       // the client sends no more
    bool shut_down = false;           // by the server
    runtime::StreamOp* receiving = nullptr;
    runtime::StreamOp* sending = nullptr;
    bool stalled = false;  // the client reads nothing
};

class LoopConnection : public runtime::Connection {
  public:
    explicit LoopConnection(std::shared_ptr<LoopPipe> pipe) : pipe_(std::move(pipe)) {}
    ~LoopConnection() override {
        pipe_->receiving = pipe_->sending = nullptr;
        pipe_->shut_down = true;
    }
    void submit_receive(runtime::StreamOp& op) override {
        PF_ASSERT(pipe_->receiving == nullptr);
        pipe_->receiving = &op;
    }
    void submit_send(runtime::StreamOp& op) override {
        PF_ASSERT(pipe_->sending == nullptr);
        pipe_->sending = &op;
    }
    void shut_down() override { pipe_->shut_down = true; }
    const runtime::Address& peer() const override { return peer_; }

  private:
    std::shared_ptr<LoopPipe> pipe_;
    runtime::Address peer_{"client", 1};
};

class LoopReactor : public runtime::Reactor {
  public:
    explicit LoopReactor(size_t arena_bytes = 64u << 20) : Reactor(1) {
        set_buffers(std::make_unique<runtime::BufferPool>(arena_bytes));
    }
    ~LoopReactor() override { destroy_detached(); }

    runtime::Nanos now() const override { return now_; }
    runtime::Nanos fresh_now() const override { return now_; }
    runtime::Task<Result<std::unique_ptr<runtime::Disk>>> open_disk(std::string,
                                                                    runtime::DiskOptions) override {
        co_return fail(Errc::unsupported);
    }
    Result<std::unique_ptr<runtime::Listener>> listen(const runtime::Address& address) override {
        return std::make_unique<LoopListener>(*this, address);
    }
    runtime::Task<Result<std::unique_ptr<runtime::Connection>>> connect(runtime::Address,
                                                                        runtime::Nanos) override {
        co_return fail(Errc::unsupported);
    }
    void post(runtime::PostedCall& call) override { call.run(call); }

    // A client that connects: its pipe.
    std::shared_ptr<LoopPipe> connect_client() {
        const Enter enter(*this);
        const auto pipe = std::make_shared<LoopPipe>();
        pipes_.push_back(pipe);
        arriving_.push_back(pipe);
        accepting_.wake_all();
        return pipe;
    }
    // Runs until nothing moves any more, without letting time pass.
    void run() {
        const Enter enter(*this);
        for (bool moved = true; moved;) {
            moved = false;
            while (run_ready()) moved = true;
            for (const auto& pipe : pipes_) moved = step(*pipe) || moved;
            moved = timers().fire_due(now_) > 0 || moved;
        }
    }
    // The test's own calls into what lives on this reactor.
    template <class Call>
    void call(Call what) {
        const Enter enter(*this);
        what();
    }
    void advance(runtime::Nanos duration) {
        now_ += duration;
        run();
    }

  private:
    class LoopListener : public runtime::Listener {
      public:
        LoopListener(LoopReactor& reactor, runtime::Address address)
            : reactor_(reactor), address_(std::move(address)) {}
        runtime::Task<Result<std::unique_ptr<runtime::Connection>>> accept() override {
            while (!closed_ && reactor_.arriving_.empty()) co_await reactor_.accepting_.wait();
            if (closed_) co_return fail(Errc::cancelled);
            auto connection = std::make_unique<LoopConnection>(reactor_.arriving_.front());
            reactor_.arriving_.pop_front();
            co_return std::unique_ptr<runtime::Connection>(std::move(connection));
        }
        void shut_down() override {
            closed_ = true;
            reactor_.accepting_.wake_all();
        }
        const runtime::Address& local() const override { return address_; }

      private:
        LoopReactor& reactor_;
        runtime::Address address_;
        bool closed_ = false;
    };

    static bool step(LoopPipe& pipe) {
        bool moved = false;
        if (runtime::StreamOp* op = pipe.receiving) moved = receive(pipe, *op);
        if (runtime::StreamOp* op = pipe.sending; op != nullptr && send(pipe, *op)) moved = true;
        return moved;
    }
    static bool receive(LoopPipe& pipe, runtime::StreamOp& op) {
        if (pipe.shut_down) {
            op.result = -ECONNRESET;
        } else if (pipe.taken < pipe.to_server.size()) {
            const size_t bytes =
                std::min({pipe.to_server.size() - pipe.taken, op.iov->iov_len, pipe.receive_limit});
            std::memcpy(op.iov->iov_base, pipe.to_server.data() + pipe.taken, bytes);
            pipe.taken += bytes;
            op.result = static_cast<int64_t>(bytes);
        } else if (pipe.client_closed) {
            op.result = 0;
        } else {
            return false;
        }
        pipe.receiving = nullptr;
        op.complete(op);
        return true;
    }
    static bool send(LoopPipe& pipe, runtime::StreamOp& op) {
        if (pipe.shut_down) {
            op.result = -EPIPE;
        } else if (pipe.stalled) {
            return false;
        } else {
            for (uint32_t i = 0; i < op.iov_count; ++i) {
                const auto* from = static_cast<const std::byte*>(op.iov[i].iov_base);
                pipe.from_server.insert(pipe.from_server.end(), from, from + op.iov[i].iov_len);
            }
            op.result = 0;
        }
        pipe.sending = nullptr;
        op.complete(op);
        return true;
    }

    runtime::Nanos now_ = runtime::seconds;
    std::vector<std::shared_ptr<LoopPipe>> pipes_;
    std::deque<std::shared_ptr<LoopPipe>> arriving_;
    runtime::WaitQueue accepting_;
};

}  // namespace pf::attach
