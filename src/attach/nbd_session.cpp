#include "attach/nbd_session.hpp"

#include <fmt/format.h>

#include <bit>

namespace pf::attach::nbd {

using runtime::Task;

namespace {

// What the pool takes for a piece of this length.
uint64_t charge_of(uint64_t length) {
    return std::max<uint64_t>(std::bit_ceil(length), runtime::BufferPool::min_buffer_bytes);
}

// The length of the piece that begins at `offset` when `left` of `whole` bytes are left.
uint64_t piece_length(uint64_t whole, uint64_t left, uint64_t offset) {
    if (whole <= Session::piece_bytes) return left;
    return std::min<uint64_t>(left, Session::piece_bytes - offset % Session::piece_bytes);
}

uint64_t charge_of(const Request& request) {
    uint64_t charge = 0;
    for (uint64_t done = 0; done < request.length_bytes;) {
        const uint64_t length =
            piece_length(request.length_bytes, request.length_bytes - done, request.offset + done);
        charge += charge_of(length);
        done += length;
    }
    return charge;
}

bool is_command(const Request& request, Command command) {
    return request.type == static_cast<uint16_t>(command);
}

}  // namespace

Session::Session(std::unique_ptr<runtime::Connection> connection,
                 const std::vector<Export>& exports, SessionOptions options, Budgets& budgets)
    : connection_(std::move(connection)),
      exports_(exports),
      options_(options),
      small_{budgets.small},
      large_{budgets.large},
      input_(*connection_),
      input_stall_(*connection_),
      replies_(*connection_, options.stall_timeout, [](Job& job) { job.session->release(job); }) {
    PF_ASSERT(budgets.large.total_bytes() >= max_charge_bytes);
}

Task<Status> Session::run() {
    runtime::BufferPool& pool = runtime::Reactor::current().buffers();
    runtime::Buffer batch = co_await pool.allocate(InputStream::batch_bytes);
    input_.open(std::move(batch));
    connection_->limit_unacknowledged(options_.stall_timeout);

    input_stall_.arm(options_.handshake_timeout);
    Status ended = co_await negotiate();
    input_stall_.disarm();
    if (ended && volume_ != nullptr) {
        runtime::Reactor::current().spawn(replies_.run());
        serving_ = true;
        ended = co_await serve();
        // After a disconnect in order the client still gets its answers; otherwise it is gone.
        if (!ended) replies_.abandon();
        co_await drain();
    }
    connection_->shut_down();
    if (!ended && ended.error().code == Errc::disconnected) ended = Status{};
    co_return ended;
}

void Session::stop() {
    stopping_ = true;
    if (!serving_ || jobs_under_way_ == 0) connection_->shut_down();
}

Task<void> Session::drain() {
    while (jobs_under_way_ > 0) co_await job_released_.wait();
    replies_.close();
    co_await replies_.finished();
}

Task<Status> Session::serve() {
    while (true) {
        if (input_.buffered() < request_bytes) {
            const Status more = co_await input_.need(request_bytes);
            if (!more) co_return more;
        }
        const Result<Request> request = decode_request(input_.view(request_bytes));
        if (!request) co_return fail(Errc::protocol, "request magic is wrong");
        input_.consume(request_bytes);
        if (is_command(*request, Command::disconnect)) co_return Status{};
        if (is_command(*request, Command::write) && request->length_bytes > max_payload_bytes) {
            co_return fail(Errc::protocol, fmt::format("write length {} is over the limit of {}",
                                                       request->length_bytes, max_payload_bytes));
        }
        Job* job = jobs_.take(options_.max_requests);
        if (job == nullptr) job = co_await take_job();
        job->session = this;
        job->request = *request;
        job->error = check(*request);
        ++jobs_under_way_;
        const Status started = co_await start(*job);
        if (!started) co_return started;
    }
}

Task<Job*> Session::take_job() {
    Job* job = nullptr;
    while (job == nullptr) {
        co_await job_released_.wait();
        job = jobs_.take(options_.max_requests);
    }
    co_return job;
}

// Everything about a request that can be refused without asking the volume.
ErrorNumber Session::check(const Request& request) const {
    if (stopping_) return ErrorNumber::shutdown;
    uint16_t allowed_flags = command_fua;
    switch (static_cast<Command>(request.type)) {
        case Command::read:
            if (agreement_.structured_replies) allowed_flags |= command_df;
            if (request.length_bytes > max_payload_bytes) return ErrorNumber::invalid;
            break;
        case Command::flush:
            // It is of the whole export: the protocol reserves both fields.
            if (request.offset != 0 || request.length_bytes != 0) return ErrorNumber::invalid;
            return request.flags & ~allowed_flags ? ErrorNumber::invalid : ErrorNumber::none;
        case Command::write:
        case Command::trim:
            break;
        case Command::write_zeroes:
            allowed_flags |= command_no_hole | command_fast_zero;
            break;
        case Command::block_status:
            if (!agreement_.base_allocation) return ErrorNumber::invalid;
            allowed_flags |= command_req_one;
            break;
        default:
            return ErrorNumber::invalid;
    }
    if ((request.flags & ~allowed_flags) != 0) return ErrorNumber::invalid;
    return check_range(request);
}

ErrorNumber Session::check_range(const Request& request) const {
    const bool writes =
        !is_command(request, Command::read) && !is_command(request, Command::block_status);
    if (writes && agreement_.read_only) return ErrorNumber::not_permitted;
    if (request.length_bytes == 0 || request.length_bytes % min_block_size_bytes != 0 ||
        request.offset % min_block_size_bytes != 0) {
        return ErrorNumber::invalid;
    }
    if (request.offset > agreement_.size_bytes ||
        request.length_bytes > agreement_.size_bytes - request.offset) {
        return writes ? ErrorNumber::no_space : ErrorNumber::invalid;
    }
    // Zeroes that must stay allocated may cost as much as writing them.
    const uint16_t slow_zero = command_fast_zero | command_no_hole;
    if (is_command(request, Command::write_zeroes) && (request.flags & slow_zero) == slow_zero)
        return ErrorNumber::not_supported;
    return ErrorNumber::none;
}

// An error ends the connection: its stream can no longer be followed.
Task<Status> Session::start(Job& job) {
    Status stream{};
    if (job.error != ErrorNumber::none) {
        if (is_command(job.request, Command::write)) {
            input_stall_.arm(options_.stall_timeout);
            stream = co_await input_.skip(job.request.length_bytes);
            input_stall_.disarm();
        }
        finish(job);
        co_return stream;
    }
    switch (static_cast<Command>(job.request.type)) {
        case Command::flush:
            start_simple(job, client::IoKind::flush);
            break;
        case Command::trim:
            start_simple(job, client::IoKind::discard);
            break;
        case Command::write_zeroes:
            start_simple(job, client::IoKind::write_zeroes);
            break;
        case Command::block_status:
            runtime::Reactor::current().spawn(answer_block_status(job));
            break;
        default:
            stream = co_await start_transfer(job);
            break;
    }
    co_return stream;
}

Task<Status> Session::start_transfer(Job& job) {
    const Request& request = job.request;
    const bool write = is_command(request, Command::write);
    const uint64_t bytes = charge_of(request);
    Account& account = request.length_bytes > Budgets::small_request_bytes ? large_ : small_;
    if (account.is_over_share(bytes) || !account.budget.try_take(bytes))
        co_await wait_for_budget(account, bytes);
    account.held_bytes += bytes;
    job.account = &account;
    job.charged_bytes = bytes;

    Status stream{};
    // One limit for the whole payload: who sends a little of it now and then holds its memory, too.
    if (write && input_.buffered() < request.length_bytes) input_stall_.arm(options_.stall_timeout);
    job.unfinished = 1;
    for (uint64_t done = 0; done < request.length_bytes && stream;) {
        const uint64_t length =
            piece_length(request.length_bytes, request.length_bytes - done, request.offset + done);
        Piece& piece = add_piece(job, write ? client::IoKind::write : client::IoKind::read,
                                 request.offset + done, length);
        runtime::BufferPool& pool = runtime::Reactor::current().buffers();
        piece.memory = pool.try_allocate(length);
        if (!piece.memory) piece.memory = co_await pool.allocate(length);
        piece.vector = {piece.memory.data(), length};
        piece.io.data = {&piece.vector, 1};
        if (write) stream = co_await input_.read(piece.memory.bytes());
        if (stream) submit(piece);
        done += length;
    }
    input_stall_.disarm();
    piece_done(job, stream ? Errc::ok : stream.error().code);
    co_return stream;
}

Task<void> Session::wait_for_budget(Account& account, uint64_t bytes) {
    while (account.is_over_share(bytes)) co_await job_released_.wait();
    if (!account.budget.try_take(bytes)) co_await account.budget.take(bytes);
}

void Session::start_simple(Job& job, client::IoKind kind) {
    job.unfinished = 1;
    Piece& piece = add_piece(job, kind, job.request.offset, job.request.length_bytes);
    piece.io.data = {};
    piece.io.no_hole = (job.request.flags & command_no_hole) != 0;
    submit(piece);
    piece_done(job, Errc::ok);
}

Piece& Session::add_piece(Job& job, client::IoKind kind, uint64_t offset, uint64_t length) {
    Piece* piece = pieces_.take(size_t{options_.max_requests} * max_pieces);
    PF_ASSERT(piece != nullptr);
    piece->job = &job;
    piece->io.kind = kind;
    piece->io.no_hole = false;
    piece->io.offset = offset;
    piece->io.length = length;
    piece->io.result = Errc::ok;
    piece->io.complete = &Session::piece_complete;
    piece->io.user = piece;
    job.pieces.push_back(*piece);
    return *piece;
}

void Session::submit(Piece& piece) {
    ++piece.job->unfinished;
    const Status accepted = volume_->submit(piece.io);
    if (!accepted) piece_done(*piece.job, accepted.error().code);
}

void Session::piece_complete(client::Io& io) {
    Piece& piece = *static_cast<Piece*>(io.user);
    piece.job->session->piece_done(*piece.job, io.result);
}

void Session::piece_done(Job& job, Errc result) {
    PF_ASSERT(job.unfinished > 0);
    if (result != Errc::ok && job.error == ErrorNumber::none) job.error = to_error_number(result);
    if (--job.unfinished == 0) finish(job);
}

void Session::finish(Job& job) {
    const Request& request = job.request;
    const bool chunks = agreement_.structured_replies;
    const bool is_read = is_command(request, Command::read);
    const bool failed = job.error != ErrorNumber::none;
    if (chunks && is_read && !failed) {
        job.header_bytes =
            put_data_chunk(job.header, request.cookie, request.offset, request.length_bytes);
    } else if (chunks && !job.extents.empty()) {
        job.header_bytes = put_block_status_chunk(job.header, request.cookie,
                                                  static_cast<uint32_t>(job.extents.size() / 8));
    } else if (chunks && (is_read || failed)) {
        job.header_bytes = put_closing_chunk(job.header, request.cookie, job.error);
    } else {
        // Shorter than a chunk, and allowed for all but reads and block status.
        job.header_bytes = put_simple_reply(job.header, request.cookie, job.error);
    }
    replies_.push(job);
}

void Session::release(Job& job) {
    while (Piece* piece = job.pieces.pop_front()) {
        piece->memory = runtime::Buffer();
        pieces_.give_back(*piece);
    }
    if (job.account != nullptr) {
        job.account->held_bytes -= job.charged_bytes;
        job.account->budget.give_back(job.charged_bytes);
    }
    job.account = nullptr;
    job.extents.clear();
    jobs_.give_back(job);
    --jobs_under_way_;
    job_released_.wake_one();
    if (stopping_ && jobs_under_way_ == 0) connection_->shut_down();
}

}  // namespace pf::attach::nbd
