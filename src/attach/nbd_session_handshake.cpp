// The parts of a session off the I/O path: the handshake and block status.
#include "attach/nbd_session.hpp"

namespace pf::attach::nbd {

using runtime::Task;

std::vector<ExportInfo> Session::offered() const {
    std::vector<ExportInfo> offered;
    for (const Export& one : exports_) {
        const client::VolumeInfo& info = one.volume->info();
        offered.push_back({one.name, info.size_bytes, one.read_only || info.read_only});
    }
    return offered;
}

Task<Status> Session::negotiate() {
    std::vector<std::byte> greeting;
    put_greeting(Writer(greeting));
    PF_CO_TRY(co_await connection_->send(Bytes(greeting)));
    PF_CO_TRY(co_await input_.need(client_flags_bytes));
    PF_CO_TRY_ASSIGN(const uint32_t flags, decode_client_flags(input_.view(client_flags_bytes)));
    input_.consume(client_flags_bytes);

    Negotiation negotiation(offered());
    negotiation.client_flags(flags);
    Verdict verdict = Verdict::next_option;
    while (verdict == Verdict::next_option) {
        Result<Verdict> next = co_await next_option(negotiation);
        if (!next) co_return std::unexpected(std::move(next).error());
        verdict = *next;
    }
    if (verdict == Verdict::transmission) {
        agreement_ = negotiation.agreement();
        volume_ = exports_[agreement_.export_index].volume;
    }
    co_return Status{};
}

Task<Result<Verdict>> Session::next_option(Negotiation& negotiation) {
    PF_CO_TRY(co_await input_.need(option_header_bytes));
    PF_CO_TRY_ASSIGN(const OptionHeader header,
                     decode_option_header(input_.view(option_header_bytes)));
    input_.consume(option_header_bytes);
    static_assert(max_option_bytes <= InputStream::batch_bytes);
    PF_CO_TRY(co_await input_.need(header.length_bytes));
    std::vector<std::byte> reply;
    PF_CO_TRY_ASSIGN(const Verdict verdict,
                     negotiation.option(header, input_.view(header.length_bytes), reply));
    input_.consume(header.length_bytes);
    if (!reply.empty()) PF_CO_TRY(co_await connection_->send(Bytes(reply)));
    co_return verdict;
}

Task<void> Session::answer_block_status(Job& job) {
    constexpr uint32_t max_extents = 1024;
    const uint32_t limit = (job.request.flags & command_req_one) != 0 ? 1 : max_extents;
    const Result<std::vector<client::Extent>> extents =
        co_await volume_->block_states(job.request.offset, job.request.length_bytes, limit);
    if (!extents) {
        job.error = to_error_number(extents.error().code);
    } else {
        encode_extents(job, *extents);
        if (job.extents.empty()) job.error = ErrorNumber::io;
    }
    finish(job);
}

void Session::encode_extents(Job& job, const std::vector<client::Extent>& extents) {
    Writer writer(job.extents);
    uint64_t left = job.request.length_bytes;
    for (const client::Extent& extent : extents) {
        const auto length = static_cast<uint32_t>(std::min(extent.length_bytes, left));
        if (length == 0) break;
        const uint32_t states[] = {state_hole | state_zero, state_zero, 0};
        // A state this server does not know is told as data, which is always safe to read.
        writer.put(length).put(extent.state < 3 ? states[extent.state] : 0u);
        left -= length;
    }
}

}  // namespace pf::attach::nbd
