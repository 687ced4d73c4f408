#include "conductor/rpc_server.hpp"

#include <algorithm>
#include <cstring>

#include "base/uuid.hpp"
#include "net/rpc.hpp"

namespace pf::conductor {

using runtime::Task;

namespace {
uint64_t connection_of(const net::ServerChannel& channel) {
    return reinterpret_cast<uint64_t>(channel.user);
}

// Of the generated schema, so it outlives the request.
std::string_view op_name(const v1::RpcRequest& request) {
    const auto* field = v1::RpcRequest::descriptor()->FindFieldByNumber(request.method_case());
    return field == nullptr ? std::string_view("none") : std::string_view(field->name());
}
}  // namespace

Status RpcServer::on_hello(net::ServerChannel& channel, const wire::Hello& hello,
                           wire::HelloReply& reply) {
    if (hello.role == wire::Role::conductor) {
        return fail(Errc::unsupported, "a conductor does not serve another conductor");
    }
    if (hello.shard != 0) {
        return fail(Errc::unsupported, "this is a conductor's RPC port: data is at the stores");
    }
    reply.depth = std::min(hello.depth, max_depth);
    if (const auto cluster = Uuid::parse(core_.cluster().record.uuid())) {
        std::memcpy(reply.cluster, cluster->bytes.data(), cluster->bytes.size());
    }
    // The handler's word holds a number here, never a pointer.
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    channel.user = reinterpret_cast<void*>(next_connection_);
    connections_.insert(next_connection_++);
    return {};
}

void RpcServer::on_disconnect(net::ServerChannel& channel) {
    connections_.erase(connection_of(channel));
    core_.close_connection(connection_of(channel));
}

Task<void> RpcServer::on_command(net::ServerChannel& channel, net::Incoming incoming) {
    if (incoming.command.opcode != wire::Opcode::rpc) {
        net::Reply reply;
        const bool ping = incoming.command.opcode == wire::Opcode::ping;
        reply.completion.status = static_cast<uint16_t>(ping ? Errc::ok : Errc::unsupported);
        channel.reply(incoming.command, std::move(reply));
        co_return;
    }
    if (!incoming.payload_ok) {
        net::rpc_reply(channel, incoming.command, fail(Errc::bad_payload));
        co_return;
    }
    std::string request(net::rpc_request(incoming));
    const wire::Command command = incoming.command;
    {
        // Others' calls need the buffer while this one waits for a store.
        const net::Incoming read = std::move(incoming);
    }
    Result<std::string> result = co_await answer(std::move(request), connection_of(channel));
    net::rpc_reply(channel, command, std::move(result));
}

Task<Result<std::string>> RpcServer::answer(std::string bytes, uint64_t connection) {
    runtime::Reactor& reactor = runtime::Reactor::current();
    const runtime::Nanos begin = reactor.fresh_now();
    v1::RpcRequest request;
    if (!request.ParseFromString(bytes)) {
        co_return fail(Errc::protocol, "the request is not a known message");
    }
    const std::string_view op = op_name(request);
    const Result<v1::RpcReply> reply = co_await dispatch(std::move(request), connection);
    core_.rpc_times().record(op, reactor.fresh_now() - begin);
    if (!reply) co_return std::unexpected<Error>(reply.error());
    co_return reply->SerializeAsString();
}

Task<Result<v1::RpcReply>> RpcServer::open(v1::OpenVolumeRequest request, uint64_t connection) {
    auto opened = co_await core_.open_volume(std::move(request), connection);
    if (!opened) co_return std::unexpected<Error>(opened.error());
    // Gone while it was opened: nobody will close this handle.
    if (!connections_.contains(connection)) core_.close_connection(connection);
    v1::RpcReply reply;
    *reply.mutable_open_volume() = std::move(*opened);
    co_return reply;
}

Task<Result<v1::RpcReply>> RpcServer::dispatch(v1::RpcRequest request, uint64_t connection) {
    v1::RpcReply reply;
    switch (request.method_case()) {
        case v1::RpcRequest::kOpenVolume:
            co_return co_await open(request.open_volume(), connection);
        case v1::RpcRequest::kCloseVolume: {
            PF_CO_TRY(core_.close_volume(request.close_volume().handle(), connection));
            reply.mutable_close_volume();
            break;
        }
        case v1::RpcRequest::kListShards: {
            PF_CO_TRY_ASSIGN(*reply.mutable_list_shards(),
                             core_.list_shards(request.list_shards()));
            break;
        }
        case v1::RpcRequest::kStatVolume: {
            PF_CO_TRY_ASSIGN(
                *reply.mutable_stat_volume()->mutable_volume(),
                core_.show_volume(request.stat_volume().name(), request.stat_volume().id()));
            break;
        }
        case v1::RpcRequest::kCreateVolume: {
            auto created = co_await core_.create_volume(request.create_volume());
            PF_CO_TRY_ASSIGN(*reply.mutable_volume(), std::move(created));
            break;
        }
        case v1::RpcRequest::kDeleteVolume: {
            auto deleted = co_await core_.delete_volume(request.delete_volume());
            if (!deleted) co_return std::unexpected<Error>(deleted.error());
            reply.mutable_delete_volume();
            break;
        }
        case v1::RpcRequest::kRenameVolume: {
            auto renamed = co_await core_.rename_volume(request.rename_volume());
            PF_CO_TRY_ASSIGN(*reply.mutable_volume(), std::move(renamed));
            break;
        }
        case v1::RpcRequest::kResizeVolume: {
            auto resized = co_await core_.resize_volume(request.resize_volume());
            PF_CO_TRY_ASSIGN(*reply.mutable_volume(), std::move(resized));
            break;
        }
        case v1::RpcRequest::kListVolumes: {
            const auto& list = request.list_volumes();
            *reply.mutable_list_volumes() = core_.list_volumes(list.after(), list.limit());
            break;
        }
        case v1::RpcRequest::kRegisterStore: {
            auto registered = co_await core_.register_store(request.register_store());
            PF_CO_TRY_ASSIGN(*reply.mutable_register_store(), std::move(registered));
            break;
        }
        case v1::RpcRequest::kHeartbeat: {
            PF_CO_TRY_ASSIGN(*reply.mutable_heartbeat(), core_.heartbeat(request.heartbeat()));
            break;
        }
        default:
            co_return fail(Errc::unsupported, "this method is not one of a conductor");
    }
    co_return reply;
}

}  // namespace pf::conductor
