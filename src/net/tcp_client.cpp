#include "net/tcp_client.hpp"

#include <fmt/format.h>

#include "base/planted.hpp"

namespace pf::net {

using runtime::Nanos;
using runtime::Task;

namespace {

// Where the pieces of a completion's data begin in their first block (docs/formats/wire.md).
uint64_t data_offset(const wire::Completion& completion, const wire::Command& command) {
    const bool blocks = completion.opcode == wire::Opcode::read && completion.status == 0;
    return blocks ? command.offset : 0;
}

Error refused(const wire::HelloReply& reply) {
    const auto code = static_cast<Errc>(reply.status);
    if (code == Errc::unsupported_version)
        return {code, fmt::format("the server speaks version {}, this client versions {} to {}",
                                  reply.version, wire::version_min, wire::version_max)};
    return {code, "the server refused the connection"};
}

size_t total_bytes(std::span<const iovec> vectors) {
    size_t bytes = 0;
    for (const iovec& vector : vectors) bytes += vector.iov_len;
    return bytes;
}

}  // namespace

TcpClient::TcpClient(runtime::Reactor& reactor, std::unique_ptr<runtime::Connection> connection,
                     const ClientOptions& options)
    : reactor_(reactor),
      connection_(std::move(connection)),
      options_(options),
      inbox_(reactor, *connection_) {}

Task<Status> TcpClient::handshake(Nanos deadline_at) {
    Deadline deadline(*connection_);
    reactor_.timers().arm(deadline, deadline_at);
    wire::Hello hello;
    hello.role = options_.role;
    hello.depth = options_.depth;
    hello.session = options_.session;
    hello.shard = options_.shard;
    std::byte bytes[wire::header_bytes];
    wire::encode(hello, bytes);
    const Status sent = co_await connection_->send(Bytes(bytes));
    inbox_.open();
    Status filled;
    if (sent) filled = co_await inbox_.fill(wire::header_bytes, true);
    if (deadline.expired()) co_return fail(Errc::timed_out, "no answer to the handshake");
    PF_CO_TRY(sent);
    PF_CO_TRY(filled);
    PF_CO_TRY_ASSIGN(hello_, wire::decode_hello_reply(
                                 std::span<const std::byte, 64>(inbox_.at(), wire::header_bytes)));
    inbox_.consume(wire::header_bytes);
    if (hello_.status != 0) co_return std::unexpected(refused(hello_));
    if (hello_.depth > options_.depth)
        co_return fail(Errc::protocol, "hello reply: depth is more than was asked for");
    credits_ = hello_.depth;
    slots_.resize(credits_);
    for (uint32_t index = credits_; index > 0; --index) {
        slots_[index - 1].next_free = first_free_;
        first_free_ = index - 1;
    }
    co_return Status{};
}

Task<void> TcpClient::run(Shared self) {
    self->sender_running_ = true;
    self->reactor_.spawn(run_sender(self));
    Status ended = co_await self->receive_completions();
    if (!ended) self->disconnect(std::move(ended.error()));
    // The kernel may still read the memory of requests until the send has ended.
    while (self->sender_running_) co_await self->sender_ended_.wait();
    // Set first: what a callback issues again must not wait for this coroutine.
    self->gone_.set();
    self->complete_all_disconnected();
}

Task<void> TcpClient::run_sender(Shared self) {
    co_await self->send_commands();
    self->sender_running_ = false;
    self->sender_ended_.wake_all();
}

Task<void> TcpClient::send_commands() {
    while (!closing_) {
        if (!can_send()) {
            co_await wake_sender_.wait();
            continue;
        }
        co_await runtime::end_of_turn();
        gather();
        if (batch_.empty()) continue;
        Status sent = co_await connection_->send(batch_.vectors(), batch_.vector_count());
        if (!sent) disconnect(std::move(sent.error()));
    }
}

void TcpClient::gather() {
    batch_.clear();
    while (!closing_ && can_send()) {
        Request& request = *queued_.front();
        const size_t data_bytes = request.data.empty() ? 0 : request.command.length;
        if (!batch_.has_room(request.data.size(), data_bytes)) return;
        queued_.pop_front();
        add_to_batch(request);
    }
}

void TcpClient::add_to_batch(Request& request) {
    take_slot(request);
    flying_.push_back(request);
    wire::Command& command = request.command;
    command.version = static_cast<uint8_t>(hello_.version);
    command.payload_length =
        static_cast<uint32_t>(request.crcs.size_bytes() + total_bytes(request.data));
    wire::encode(command, batch_.add_header());
    batch_.add_crcs(request.crcs);
    for (const iovec& vector : request.data) batch_.add_data(vector.iov_base, vector.iov_len);
}

void TcpClient::take_slot(Request& request) {
    const uint32_t index = first_free_;
    PF_ASSERT(index != no_slot);
    Slot& slot = slots_[index];
    first_free_ = slot.next_free;
    slot.request = &request;
    ++used_slots_;
    request.command.command_id = index | slot.generation << index_bits;
}

void TcpClient::free_slot(uint32_t index) {
    Slot& slot = slots_[index];
    slot.request = nullptr;
    ++slot.generation;
    slot.next_free = first_free_;
    first_free_ = index;
    --used_slots_;
}

Result<uint32_t> TcpClient::find_slot(const wire::Completion& completion) const {
    const uint32_t index = completion.command_id & (wire::max_depth - 1);
    if (index < slots_.size()) {
        const Request* request = slots_[index].request;
        if (request != nullptr && request->command.command_id == completion.command_id &&
            request->command.opcode == completion.opcode) {
            return index;
        }
    }
    return fail(Errc::protocol,
                fmt::format("completion: command_id is {:#x}, opcode {}: no such "
                            "command is in flight",
                            completion.command_id, static_cast<int>(completion.opcode)));
}

Task<Status> TcpClient::receive_completions() {
    while (!closing_) {
        if (inbox_.buffered() < wire::header_bytes) {
            const Status filled = co_await inbox_.fill(wire::header_bytes, false);
            PF_CO_TRY(filled);
        }
        PF_CO_TRY_ASSIGN(const wire::Completion completion,
                         wire::decode_completion(std::span<const std::byte, wire::header_bytes>(
                             inbox_.at(), wire::header_bytes)));
        PF_CO_TRY_ASSIGN(const uint32_t index, find_slot(completion));
        inbox_.consume(wire::header_bytes);
        Request& request = *slots_[index].request;
        // Before anything looks at the payload: an "ok" that comes with none has nothing to check.
        if (completion.opcode == wire::Opcode::read && completion.status == 0 &&
            completion.length != request.command.length)
            co_return fail(Errc::protocol, "completion: length is not that of the read");
        request.completion = completion;
        request.outcome = Errc::ok;
        if (completion.payload_length > 0 && !take_buffered(request, completion)) {
            const Status received = co_await receive_payload(request, completion);
            PF_CO_TRY(received);
        }
        if (completion.credits > 0) credits_ = std::min<uint32_t>(completion.credits, hello_.depth);
        free_slot(index);
        finish(request, request.outcome);
        if (can_send()) wake_sender_.wake_one();
    }
    co_return Status{};
}

Task<Status> TcpClient::receive_payload(Request& request, const wire::Completion& completion) {
    const uint64_t offset = data_offset(completion, request.command);
    const uint32_t length = completion.length;
    if (completion.payload_length != wire::payload_bytes(offset, length))
        co_return fail(Errc::protocol, "completion: payload_length does not fit the request");
    // The text of an error must not land in the user's data.
    if (completion.status != 0 && completion.opcode != wire::Opcode::rpc)
        co_return co_await inbox_.skip(completion.payload_length);

    std::span<const iovec> into = request.into;
    if (request.make_room != nullptr) into = request.make_room(request, length);
    if (total_bytes(into) < length)
        co_return fail(Errc::protocol, "completion: length is more than there is room for");

    const uint32_t count = wire::blocks_touched(offset, length);
    const size_t table_bytes = count * sizeof(uint32_t);
    if (inbox_.buffered() < table_bytes) {
        const Status filled = co_await inbox_.fill(table_bytes, true);
        PF_CO_TRY(filled);
    }
    inbox_.take_table({crcs_, count});
    PieceChecker checker({crcs_, count}, offset, length);
    const Status received = co_await inbox_.receive_data(into, length, checker);
    PF_CO_TRY(received);
    keep_result(request, checker, count);
    co_return Status{};
}

bool TcpClient::take_buffered(Request& request, const wire::Completion& completion) {
    const uint32_t length = completion.length;
    const uint64_t offset = request.command.offset;
    // Whatever is unusual is for receive_payload to refuse or to take.
    const bool common = completion.opcode == wire::Opcode::read && completion.status == 0 &&
                        length == request.command.length && length <= copy_limit_bytes &&
                        completion.payload_length == wire::payload_bytes(offset, length) &&
                        inbox_.buffered() >= completion.payload_length &&
                        request.make_room == nullptr && total_bytes(request.into) >= length;
    if (!common) return false;
    const uint32_t count = wire::blocks_touched(offset, length);
    inbox_.take_table({crcs_, count});
    PieceChecker checker({crcs_, count}, offset, length);
    inbox_.take_data(request.into, length, checker);
    keep_result(request, checker, count);
    return true;
}

void TcpClient::keep_result(Request& request, const PieceChecker& checker, uint32_t count) {
    if (!checker.ok() && !planted("client_believes_payload")) request.outcome = Errc::corrupt;
    const size_t kept = std::min<size_t>(count, request.crcs_into.size());
    std::copy_n(crcs_, kept, request.crcs_into.begin());
}

void TcpClient::finish(Request& request, Errc outcome) {
    request.unlink();
    request.outcome = outcome;
    --in_flight_;
    request.complete(request);
}

void TcpClient::complete_all_disconnected() {
    for (Slot& slot : slots_) slot.request = nullptr;
    // What a callback issues again goes to the end of `queued_` and is completed by drop_queued.
    List<Request> ending;
    while (Request* request = flying_.pop_front()) ending.push_back(*request);
    while (Request* request = queued_.pop_front()) ending.push_back(*request);
    while (Request* request = ending.front()) finish(*request, Errc::disconnected);
}

void TcpClient::issue(Request& request, const Shared& self) {
    PF_ASSERT(request.complete != nullptr && request.data.size() <= max_data_vectors);
    queued_.push_back(request);
    ++in_flight_;
    if (gone_.is_set()) {
        // `complete` is never called from inside issue().
        if (!dropping_) reactor_.spawn(drop_queued(self));
    } else if (used_slots_ < credits_) {
        wake_sender_.wake_one();
    }
}

Task<void> TcpClient::drop_queued(Shared self) {
    self->dropping_ = true;
    co_await runtime::yield();
    self->dropping_ = false;
    self->complete_all_disconnected();
}

void TcpClient::disconnect(Error why) {
    if (closing_) return;
    closing_ = true;
    failure_ = std::move(why);
    inbox_.close();
    connection_->shut_down();
    wake_sender_.wake_all();
}

void TcpClient::abandon() {
    disconnect({Errc::cancelled, "the channel was dropped"});
    for (Slot& slot : slots_) slot.request = nullptr;
    while (flying_.pop_front() != nullptr) {
    }
    while (queued_.pop_front() != nullptr) {
    }
}

Task<void> TcpClient::wait_gone(Shared self) {
    co_await self->gone_.wait();
}

// --- the handle ---

namespace {

class TcpClientChannel final : public ClientChannel {
  public:
    explicit TcpClientChannel(TcpClient::Shared client) : client_(std::move(client)) {}
    ~TcpClientChannel() override { client_->abandon(); }

    void issue(Request& request) override { client_->issue(request, client_); }
    Task<void> close() override {
        client_->disconnect({Errc::cancelled, "closed by its user"});
        return TcpClient::wait_gone(client_);
    }
    bool connected() const override { return client_->connected(); }
    Task<void> wait_disconnected() override { return TcpClient::wait_gone(client_); }
    uint32_t in_flight() const override { return client_->in_flight(); }
    const wire::HelloReply& hello() const override { return client_->hello(); }
    const Error& failure() const override { return client_->failure(); }

  private:
    TcpClient::Shared client_;
};

// The runtime names the address by itself; a handshake that failed does not.
Error at_address(Error error, const runtime::Address& address) {
    if (error.message.find(address.text()) != std::string::npos) return error;
    error.message = error.message.empty()
                        ? fmt::format("cannot connect to {}", address.text())
                        : fmt::format("cannot connect to {}: {}", address.text(), error.message);
    return error;
}

}  // namespace

Task<Result<std::unique_ptr<ClientChannel>>> ClientChannel::connect(runtime::Address address,
                                                                    ClientOptions options) {
    if (options.depth == 0 || options.depth > wire::max_depth)
        co_return fail(Errc::invalid_argument,
                       fmt::format("depth is {}, allowed is 1 to 1024", options.depth));
    runtime::Reactor& reactor = runtime::Reactor::current();
    const Nanos deadline = reactor.now() + options.connect_timeout;
    auto connecting = reactor.connect(address, options.connect_timeout);
    auto connection = co_await connecting;
    if (!connection) co_return std::unexpected(at_address(std::move(connection.error()), address));
    auto client = std::make_shared<TcpClient>(reactor, std::move(*connection), options);
    Status greeted = co_await client->handshake(deadline);
    if (!greeted) {
        client->disconnect({});
        co_return std::unexpected(at_address(std::move(greeted.error()), address));
    }
    reactor.spawn(TcpClient::run(client));
    std::unique_ptr<ClientChannel> channel = std::make_unique<TcpClientChannel>(client);
    co_return channel;
}

}  // namespace pf::net
