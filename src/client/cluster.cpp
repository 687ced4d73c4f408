// The conductor's side of the library: opening and administering volumes.
#include <fmt/format.h>

#include "client/volume_core.hpp"
#include "runtime/pause.hpp"

namespace pf::client {

using pureflash::v1::RpcReply;
using pureflash::v1::RpcRequest;
using runtime::Task;

namespace {

constexpr uint32_t volumes_per_page = 256;
constexpr uint64_t max_shards = max_volume_bytes / default_shard_bytes * 64;

// What the rest of the library takes for granted.
Status check_opened(const VolumeInfo& info) {
    if (info.id == 0 || info.size_bytes == 0 || info.size_bytes % block_bytes != 0 ||
        info.size_bytes > max_volume_bytes || info.shard_bytes == 0 ||
        info.shard_bytes % chunk_bytes != 0 || info.size_bytes / info.shard_bytes > max_shards) {
        return fail(Errc::protocol,
                    fmt::format("the conductor describes volume '{}' with a size of {} and shards "
                                "of {} bytes",
                                info.name, info.size_bytes, info.shard_bytes));
    }
    return {};
}

class ClusterCore final : public Cluster {
  public:
    explicit ClusterCore(ClusterOptions options)
        : options_(std::move(options)), conductor_(options_.conductor) {}

    Task<Result<std::unique_ptr<Volume>>> open(std::string name, bool read_only,
                                               bool exclusive) override {
        PF_CO_TRY(check_volume_name(name));
        RpcRequest request;
        auto* ask = request.mutable_open_volume();
        ask->set_name(name);
        ask->set_read_only(read_only);
        ask->set_exclusive(exclusive);
        ask->set_client(options_.client_name);
        auto reply = co_await call_again(std::move(request));
        if (!reply) co_return std::unexpected(std::move(reply).error());
        const auto& answer = reply->open_volume();
        OpenedVolume opened{info_of(answer.volume()), answer.session(), answer.writer_token(),
                            answer.handle()};
        opened.info.read_only = read_only;
        PF_CO_TRY(check_opened(opened.info));
        if (!read_only && opened.session == 0)
            co_return fail(Errc::protocol, "the conductor gave no session");
        std::unique_ptr<Volume> volume =
            std::make_unique<VolumeCore>(conductor_, options_, std::move(opened));
        co_return volume;
    }

    Task<Result<VolumeInfo>> create_volume(std::string name, uint64_t size_bytes,
                                           uint32_t replicas) override {
        PF_CO_TRY(check_volume_name(name));
        PF_CO_TRY(check_volume_size(size_bytes));
        RpcRequest request;
        auto* ask = request.mutable_create_volume();
        ask->set_name(name);
        ask->set_size_bytes(size_bytes);
        ask->set_replicas(replicas);
        auto reply = co_await call(std::move(request));
        if (!reply) co_return std::unexpected(std::move(reply).error());
        co_return info_of(reply->volume());
    }

    Task<Status> delete_volume(std::string name, bool force) override {
        PF_CO_TRY(check_volume_name(name));
        RpcRequest request;
        request.mutable_delete_volume()->set_name(name);
        request.mutable_delete_volume()->set_force(force);
        auto reply = co_await call(std::move(request));
        if (!reply) co_return std::unexpected(std::move(reply).error());
        co_return Status{};
    }

    Task<Status> rename_volume(std::string name, std::string new_name) override {
        PF_CO_TRY(check_volume_name(name));
        PF_CO_TRY(check_volume_name(new_name));
        RpcRequest request;
        request.mutable_rename_volume()->set_name(name);
        request.mutable_rename_volume()->set_new_name(new_name);
        auto reply = co_await call(std::move(request));
        if (!reply) co_return std::unexpected(std::move(reply).error());
        co_return Status{};
    }

    Task<Status> resize_volume(std::string name, uint64_t size_bytes) override {
        PF_CO_TRY(check_volume_name(name));
        PF_CO_TRY(check_volume_size(size_bytes));
        RpcRequest request;
        request.mutable_resize_volume()->set_name(name);
        request.mutable_resize_volume()->set_size_bytes(size_bytes);
        auto reply = co_await call(std::move(request));
        if (!reply) co_return std::unexpected(std::move(reply).error());
        co_return Status{};
    }

    Task<Result<VolumeInfo>> stat(std::string name) override {
        PF_CO_TRY(check_volume_name(name));
        RpcRequest request;
        request.mutable_stat_volume()->set_name(name);
        auto reply = co_await call(std::move(request));
        if (!reply) co_return std::unexpected(std::move(reply).error());
        co_return info_of(reply->stat_volume().volume());
    }

    Task<Result<std::vector<VolumeInfo>>> list() override {
        std::vector<VolumeInfo> volumes;
        std::string after;
        for (bool more = true; more;) {
            RpcRequest request;
            request.mutable_list_volumes()->set_after(after);
            request.mutable_list_volumes()->set_limit(volumes_per_page);
            auto reply = co_await call(std::move(request));
            if (!reply) co_return std::unexpected(std::move(reply).error());
            for (const auto& volume : reply->list_volumes().volumes())
                volumes.push_back(info_of(volume));
            // A page that brings nothing new must not loop for ever.
            more = reply->list_volumes().more() && !volumes.empty() && volumes.back().name > after;
            if (more) after = volumes.back().name;
        }
        co_return volumes;
    }

    Task<void> close() override {
        pause_.end();
        co_await conductor_.close();
    }

  private:
    // A client may come up before the conductor. One waiter asks for all.
    Task<Status> reach_conductor(runtime::Nanos deadline) {
        runtime::Reactor& reactor = runtime::Reactor::current();
        co_await patience_.lock();
        if (reactor.now() >= deadline) {  // all of it went by while others tried
            patience_.unlock();
            co_return std::unexpected(unreachable_);
        }
        Status reached = co_await conductor_.connect();
        for (uint32_t failures = 0; !reached && reached.error().code == Errc::disconnected;
             ++failures) {
            const runtime::Nanos pause = runtime::backoff(
                reactor.rng(), failures, 50 * runtime::milliseconds, runtime::seconds);
            if (reactor.now() + pause >= deadline) break;
            co_await pause_.wait(pause);
            reached = co_await conductor_.connect();
        }
        if (!reached) unreachable_ = reached.error();
        patience_.unlock();
        co_return reached;
    }

    Task<Result<RpcReply>> call(RpcRequest request) {
        PF_CO_TRY(
            co_await reach_conductor(runtime::Reactor::current().now() + options_.open_timeout));
        auto reply = co_await conductor_.call(std::move(request));
        co_return reply;
    }

    // For what may be asked twice: what a lost answer left open at the conductor went with its
    // connection.
    Task<Result<RpcReply>> call_again(RpcRequest request) {
        const runtime::Nanos deadline = runtime::Reactor::current().now() + options_.open_timeout;
        for (;;) {
            PF_CO_TRY(co_await reach_conductor(deadline));
            auto reply = co_await conductor_.call(request);
            const bool lost = !reply && reply.error().code == Errc::disconnected;
            if (!lost || runtime::Reactor::current().now() >= deadline) co_return reply;
            co_await runtime::sleep_for(50 * runtime::milliseconds);
        }
    }

    ClusterOptions options_;
    ConductorLink conductor_;
    runtime::Mutex patience_;  // one waits, the others behind it
    Error unreachable_{Errc::timed_out, "the conductor was not reached in time"};  // the latest
    runtime::Pause pause_;
};

}  // namespace

Result<std::unique_ptr<Cluster>> Cluster::create(ClusterOptions options) {
    if (options.depth == 0 || options.depth > wire::max_depth) {
        return fail(Errc::invalid_argument,
                    fmt::format("depth is {}, allowed is 1 to {}", options.depth, wire::max_depth));
    }
    return std::make_unique<ClusterCore>(std::move(options));
}

}  // namespace pf::client
