#include "net/tcp_session.hpp"

#include <fmt/format.h>

#include <bit>

#include "net/two_buffers.hpp"

namespace pf::net {

using runtime::Buffer;
using runtime::Task;

namespace {

uint32_t halves_of(const wire::Command& command) {
    return command.opcode == wire::Opcode::compare_and_write ? 2 : 1;
}

// The memory that a command's payload takes.
struct Layout {
    explicit Layout(const wire::Command& command) {
        const uint32_t halves = halves_of(command);
        const uint32_t blocks = wire::blocks_touched(command.offset, command.length);
        crc_count = halves * blocks;
        area_bytes = size_t{crc_count} * block_bytes;
        data_bytes = halves * command.length;
    }
    [[nodiscard]] size_t table_bytes() const { return crc_count * sizeof(uint32_t); }
    [[nodiscard]] size_t crcs_memory_bytes() const {
        return crc_count <= Incoming::inline_crcs ? 0 : table_bytes();
    }
    uint32_t crc_count;
    uint32_t data_bytes;
    size_t area_bytes;
};

// Where the one or two parts of it go.
class Places {
  public:
    explicit Places(const Incoming& incoming) : count_(halves_of(incoming.command)) {
        for (uint32_t half = 0; half < count_; ++half) {
            const MutableBytes part = incoming.part(half);
            parts_[half] = {part.data(), part.size()};
        }
    }
    [[nodiscard]] std::span<const iovec> vectors() const { return {parts_, count_}; }

  private:
    iovec parts_[2];
    uint32_t count_;
};

std::span<uint32_t> table_of(Incoming& incoming) {
    auto* at = incoming.crc_count <= Incoming::inline_crcs
                   ? incoming.crcs_inline
                   : reinterpret_cast<uint32_t*>(incoming.crcs_memory.data());
    return {at, incoming.crc_count};
}

// What the answer takes of the buffer pool until it was sent: data, and a CRC table that is not
// inline.
size_t answer_memory(const wire::Command& command) {
    if (command.opcode == wire::Opcode::block_states) {
        return wire::max_block_runs * sizeof(wire::BlockRun);
    }
    if (command.opcode != wire::Opcode::read) return 0;
    const size_t data = std::bit_ceil(size_t{command.length});
    const uint32_t crcs = wire::blocks_touched(command.offset, command.length);
    const size_t table = crcs > Incoming::inline_crcs ? runtime::BufferPool::min_buffer_bytes : 0;
    return std::max(data, runtime::BufferPool::min_buffer_bytes) + table;
}

// Peers that send half of a payload each must not keep all of it from the others for long.
bool is_scarce(const runtime::BufferPool& pool) {
    return pool.free_bytes() < pool.arena().size() / 2;
}

// Where the pieces of an answer's data begin in their first block (docs/formats/wire.md).
uint64_t data_offset(const wire::Completion& completion, uint64_t command_offset) {
    const bool blocks = completion.opcode == wire::Opcode::read && completion.status == 0;
    return blocks ? command_offset : 0;
}

void compute_crcs(Reply& reply, uint64_t offset, uint32_t count) {
    const std::span<uint32_t> crcs = reply.make_crcs({}, count);
    Bytes data(reply.data.data() + reply.data_begin, reply.data_length);
    size_t step = std::min<size_t>(data.size(), block_bytes - offset % block_bytes);
    for (uint32_t& crc : crcs) {
        crc = crc32c(data.first(step));
        data = data.subspan(step);
        step = std::min<size_t>(data.size(), block_bytes);
    }
}

}  // namespace

TcpSession::TcpSession(runtime::Reactor& reactor, Handler& handler,
                       std::unique_ptr<runtime::Connection> connection, const wire::Hello& hello)
    : reactor_(reactor),
      handler_(handler),
      connection_(std::move(connection)),
      hello_(hello),
      inbox_(reactor, *connection_),
      version_(static_cast<uint8_t>(std::min(hello.version_max, wire::version_max))) {}

Task<void> TcpSession::run(Shared self) {
    Status ended = co_await self->handshake();
    if (ended) {
        self->sender_running_ = true;
        self->reactor_.spawn(run_sender(self));
        ended = co_await self->receive_commands();
    }
    if (!ended) self->report(ended.error());
    self->disconnect();
    while (self->sender_running_ || self->unanswered_ > 0) co_await self->ended_.wait();
    if (self->accepted_) self->handler_.on_disconnect(*self);
    self->unlink();
}

// A peer that hangs up is nothing to report.
void TcpSession::report(const Error& error) {
    if (closing_ || error.code == Errc::disconnected) return;
    handler_.on_peer_error(peer(), error);
}

void TcpSession::disconnect() {
    if (closing_) return;
    closing_ = true;
    inbox_.close();
    connection_->shut_down();
    wake_sender_.wake_all();
    answers_sent_.wake_all();
}

// --- handshake ---

Task<Status> TcpSession::handshake() {
    wire::HelloReply answer;
    Status accepted = accept_hello(answer);
    std::byte bytes[wire::header_bytes];
    wire::encode(answer, bytes);
    const Status sent = co_await connection_->send(Bytes(bytes));
    PF_CO_TRY(std::move(accepted));
    PF_CO_TRY(sent);
    inbox_.open();
    batch_ = std::make_unique<SendBatch>();
    co_return Status{};
}

Status TcpSession::accept_hello(wire::HelloReply& answer) {
    answer.version = version_;
    answer.depth = hello_.depth;
    Status accepted = handler_.on_hello(*this, hello_, answer);
    if (!accepted) {
        answer.status = static_cast<uint16_t>(accepted.error().code);
        return accepted;
    }
    accepted_ = true;
    answer.depth = std::clamp<uint16_t>(answer.depth, 1, hello_.depth);
    depth_ = answer.depth;
    return {};
}

// --- commands ---

Task<Status> TcpSession::receive_commands() {
    while (!closing_) {
        if (inbox_.buffered() < wire::header_bytes) {
            const Status filled = co_await inbox_.fill(wire::header_bytes, false);
            PF_CO_TRY(filled);
        }
        Incoming incoming;
        PF_CO_TRY_ASSIGN(incoming.command,
                         wire::decode_command(std::span<const std::byte, wire::header_bytes>(
                             inbox_.at(), wire::header_bytes)));
        if (incoming.command.version != version_)
            co_return fail(Errc::protocol, "command: version is not the one agreed on");
        if (credits_used_ >= depth_)
            co_return fail(Errc::protocol,
                           fmt::format("the peer has more than its {} commands in flight", depth_));
        const size_t memory = answer_memory(incoming.command);
        while (!may_promise(memory) && !closing_) co_await answers_sent_.wait();
        if (closing_) break;
        promise(memory);
        inbox_.consume(wire::header_bytes);
        ++credits_used_;
        if (incoming.command.payload_length > 0 && !take_buffered(incoming)) {
            const Status received = co_await receive_payload(incoming);
            PF_CO_TRY(received);
        }
        incoming.received_at = reactor_.now();
        ++unanswered_;
        reactor_.spawn(handler_.on_command(*this, std::move(incoming)));
    }
    co_return Status{};
}

Task<Status> TcpSession::receive_payload(Incoming& incoming) {
    const Layout layout(incoming.command);
    incoming.crc_count = layout.crc_count;
    co_await allocate_two(reactor_.buffers(), layout.area_bytes, layout.crcs_memory_bytes(),
                          incoming.data, incoming.crcs_memory);
    if (closing_) co_return fail(Errc::disconnected);
    inbox_.set_timeout(is_scarce(reactor_.buffers()) ? Inbox::scarce_timeout
                                                     : Inbox::message_timeout);
    if (inbox_.buffered() < layout.table_bytes()) {
        const Status filled = co_await inbox_.fill(layout.table_bytes(), true);
        PF_CO_TRY(filled);
    }
    inbox_.take_table(table_of(incoming));
    PieceChecker checker(incoming.crcs(), incoming.command.offset, incoming.command.length);
    const Places places(incoming);
    const Status received =
        co_await inbox_.receive_data(places.vectors(), layout.data_bytes, checker);
    PF_CO_TRY(received);
    inbox_.set_timeout(Inbox::message_timeout);
    incoming.payload_ok = checker.ok();
    co_return Status{};
}

bool TcpSession::take_buffered(Incoming& incoming) {
    const Layout layout(incoming.command);
    if (layout.data_bytes > copy_limit_bytes || layout.crcs_memory_bytes() > 0 ||
        inbox_.buffered() < incoming.command.payload_length) {
        return false;
    }
    // Small payloads must not for ever overtake a large one that waits for memory.
    if (reactor_.buffers().has_waiters()) return false;
    incoming.data = reactor_.buffers().try_allocate(layout.area_bytes);
    if (!incoming.data) return false;
    incoming.crc_count = layout.crc_count;
    inbox_.take_table(table_of(incoming));
    PieceChecker checker(incoming.crcs(), incoming.command.offset, incoming.command.length);
    inbox_.take_data(Places(incoming).vectors(), layout.data_bytes, checker);
    incoming.payload_ok = checker.ok();
    return true;
}

bool TcpSession::may_promise(size_t bytes) const {
    if (bytes == 0 || promised_bytes_ == 0) return true;
    const runtime::BufferPool& pool = reactor_.buffers();
    const size_t taken = std::min(pool.promised_bytes(), pool.arena().size());
    return promised_bytes_ + bytes <= (pool.arena().size() - taken) / 4;
}

void TcpSession::promise(size_t bytes) {
    promised_bytes_ += bytes;
    if (bytes > 0) reactor_.buffers().promise(bytes);
}

void TcpSession::take_back(size_t bytes) {
    if (bytes == 0) return;
    promised_bytes_ -= bytes;
    reactor_.buffers().take_back(bytes);
}

// --- answers ---

void TcpSession::reply(const wire::Command& command, Reply reply) {
    PF_ASSERT(unanswered_ > 0);
    --unanswered_;
    const size_t promised = answer_memory(command);
    if (closing_) {
        take_back(promised);
        if (unanswered_ == 0) ended_.wake_all();
        return;
    }
    wire::Completion& completion = reply.completion;
    completion.opcode = command.opcode;
    completion.version = version_;
    completion.command_id = command.command_id;
    completion.length = reply.data_length;
    if (completion.shard == 0) completion.shard = command.shard;
    const uint64_t offset = data_offset(completion, command.offset);
    const uint32_t pieces = wire::blocks_touched(offset, reply.data_length);
    if (reply.crc_count == 0 && pieces > 0) compute_crcs(reply, offset, pieces);
    PF_ASSERT(reply.crc_count == pieces);
    PF_ASSERT(reply.data_begin + reply.data_length <= reply.data.size() || pieces == 0);
    completion.payload_length = wire::payload_bytes(offset, reply.data_length);
    Answer& answer = take_answer();
    answer.reply = std::move(reply);
    answer.promised = promised;
    queued_.push_back(answer);
    wake_sender_.wake_one();
}

TcpSession::Answer& TcpSession::take_answer() {
    if (free_.empty()) {
        slabs_.push_back(std::make_unique<Answer[]>(answers_per_slab));
        for (size_t i = 0; i < answers_per_slab; ++i) free_.push_back(slabs_.back()[i]);
    }
    return *free_.pop_front();
}

Task<void> TcpSession::run_sender(Shared self) {
    co_await self->send_answers();
    self->sender_running_ = false;
    self->ended_.wake_all();
}

Task<void> TcpSession::send_answers() {
    Deadline deadline(*connection_);
    while (!closing_) {
        if (queued_.empty()) {
            co_await wake_sender_.wait();
            continue;
        }
        co_await runtime::end_of_turn();
        gather();
        // A batch is small: a peer that does not take it in all that time does not read.
        reactor_.timers().arm(deadline, reactor_.now() + send_timeout);
        const Status sent = co_await connection_->send(batch_->vectors(), batch_->vector_count());
        deadline.disarm();
        release(sending_);
        if (deadline.expired())
            handler_.on_peer_error(peer(), {Errc::timed_out, "the peer took no answers for 30 s"});
        if (!sent) disconnect();
    }
    // Commands that are not answered yet may wait for the very buffers that these answers hold.
    release(queued_);
}

void TcpSession::gather() {
    batch_->clear();
    while (Answer* answer = queued_.front()) {
        if (!batch_->has_room(1, answer->reply.data_length)) return;
        answer->unlink();
        sending_.push_back(*answer);
        add_to_batch(answer->reply);
        --credits_used_;
    }
}

void TcpSession::add_to_batch(const Reply& reply) {
    wire::encode(reply.completion, batch_->add_header());
    const auto* crcs = reply.crc_count <= Incoming::inline_crcs
                           ? reply.crcs_inline
                           : reinterpret_cast<const uint32_t*>(reply.crcs_memory.data());
    batch_->add_crcs({crcs, reply.crc_count});
    batch_->add_data(reply.data.data() + reply.data_begin, reply.data_length);
}

void TcpSession::release(List<Answer>& answers) {
    while (Answer* answer = answers.pop_front()) {
        {
            const Buffer data = std::move(answer->reply.data);
        }
        {
            const Buffer crcs = std::move(answer->reply.crcs_memory);
        }
        take_back(answer->promised);
        free_.push_front(*answer);
    }
    answers_sent_.wake_all();
}

}  // namespace pf::net
