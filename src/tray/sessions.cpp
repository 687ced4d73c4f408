#include "tray/sessions.hpp"

#include <algorithm>

namespace pf::tray {

namespace {
constexpr uint64_t mask_of(uint64_t request) {
    return uint64_t{1} << (request % 64);
}
constexpr size_t word_of(uint64_t request) {
    return request % session_window / 64;
}
}  // namespace

void Session::advance(uint64_t new_lowest) {
    if (new_lowest <= lowest) return;
    if (new_lowest - lowest >= session_window) {
        applied.fill(0);
        voided.fill(0);
    } else {
        for (uint64_t request = lowest; request < new_lowest; ++request) {
            applied[word_of(request)] &= ~mask_of(request);
            voided[word_of(request)] &= ~mask_of(request);
        }
    }
    lowest = new_lowest;
}

const Session* Sessions::find(uint64_t id) const {
    for (const Session& session : sessions_) {
        if (session.id == id) return &session;
    }
    return nullptr;
}

bool Sessions::open(uint64_t id) {
    if (find(id) != nullptr) return true;
    if (sessions_.size() >= session_limit) return false;
    Session session;
    session.id = id;
    sessions_.push_back(session);
    return true;
}

void Sessions::close(uint64_t id) {
    std::erase_if(sessions_, [id](const Session& session) { return session.id == id; });
}

void Sessions::mark(const RequestName& request,
                    std::array<uint64_t, session_window / 64> Session::* bits) {
    if (request.session == 0) return;
    auto* session = const_cast<Session*>(find(request.session));
    if (session == nullptr) return;
    session->advance(request.lowest_outstanding);
    if (request.request < session->lowest) return;  // answered already
    if (request.request - session->lowest >= session_window) return;
    (session->*bits)[word_of(request.request)] |= mask_of(request.request);
}

RequestState Sessions::state(const RequestName& request) const {
    const Session* session = find(request.session);
    if (session == nullptr) return RequestState::unknown_session;
    // The client has its answer to everything below its watermark; a late duplicate is not run.
    if (request.request < session->lowest) return RequestState::applied;
    if (request.request - session->lowest >= session_window) return RequestState::not_applied;
    const size_t word = word_of(request.request);
    const uint64_t mask = mask_of(request.request);
    if ((session->applied[word] & mask) != 0) return RequestState::applied;
    if ((session->voided[word] & mask) != 0) return RequestState::voided;
    return RequestState::not_applied;
}

}  // namespace pf::tray
