#include "attach/nbd_replies.hpp"

#include "attach/nbd_session.hpp"

namespace pf::attach::nbd {

using runtime::Task;

void StallTimer::arm(runtime::Nanos patience) {
    runtime::Reactor& reactor = runtime::Reactor::current();
    reactor.timers().arm(*this, reactor.now() + patience);
}

Task<void> Replies::run() {
    while (true) {
        while (ready_.empty() && !closed_) co_await wake_.wait();
        if (ready_.empty()) break;
        co_await runtime::end_of_turn();
        List<Job> batch;
        const uint32_t count = gather(batch);
        if (!broken_) {
            stall_.arm(patience_);
            const Status status = co_await connection_.send(vectors_.data(), count);
            stall_.disarm();
            if (!status) {
                broken_ = true;
                connection_.shut_down();
            }
        }
        while (Job* job = batch.pop_front()) sent_(*job);
    }
    finished_.set();
}

uint32_t Replies::gather(List<Job>& batch) {
    vector_count_ = 0;
    // A job adds its header, and its pieces or its extents.
    static_assert(1 + Session::max_pieces < max_vectors);
    uint64_t bytes = 0;
    while (vector_count_ + 1 + Session::max_pieces <= max_vectors && bytes < enough_bytes) {
        Job* job = ready_.pop_front();
        if (job == nullptr) break;
        batch.push_back(*job);
        add(job->header.data(), job->header_bytes);
        if (!job->extents.empty()) add(job->extents.data(), job->extents.size());
        if (job->error != ErrorNumber::none || job->request.type != uint16_t(Command::read))
            continue;
        bytes += job->request.length_bytes;
        for (Piece* piece = job->pieces.front(); piece != nullptr; piece = job->pieces.next(*piece))
            add(piece->vector.iov_base, piece->vector.iov_len);
    }
    return vector_count_;
}

}  // namespace pf::attach::nbd
