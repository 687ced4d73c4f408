// What a shard remembers of its clients' requests (R8, R10): per session, which ids from the lowest
// outstanding one on were applied, and which never will be. Entries leave by the client's watermark
// or by closing the session, never by time.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tray/types.hpp"

namespace pf::tray {

inline constexpr uint32_t session_limit = 64;     // Tray::max_sessions_per_shard
inline constexpr uint32_t session_window = 1024;  // Tray::max_requests_per_session

// Ids in [lowest, lowest + session_window), one bit each at id % session_window.
struct Session {
    uint64_t id = 0;
    uint64_t lowest = 1;
    std::array<uint64_t, session_window / 64> applied{};
    std::array<uint64_t, session_window / 64> voided{};

    void advance(uint64_t new_lowest);
};

class Sessions {
  public:
    [[nodiscard]] const Session* find(uint64_t id) const;
    // False when the limit is reached. Opening an open session changes nothing.
    bool open(uint64_t id);
    void close(uint64_t id);
    void restore(const Session& session) { sessions_.push_back(session); }

    // Whether `request` is inside the window that will hold after its own watermark was taken.
    [[nodiscard]] static bool in_window(const RequestName& request) {
        return request.request >= request.lowest_outstanding &&
               request.request - request.lowest_outstanding < session_window;
    }
    // Unknown sessions and unnamed requests change nothing.
    void mark_applied(const RequestName& request) { mark(request, &Session::applied); }
    void mark_voided(const RequestName& request) { mark(request, &Session::voided); }
    [[nodiscard]] RequestState state(const RequestName& request) const;

    [[nodiscard]] const std::vector<Session>& all() const { return sessions_; }

  private:
    void mark(const RequestName& request,
              std::array<uint64_t, session_window / 64> Session::* bits);

    std::vector<Session> sessions_;  // few: searched from the start
};

}  // namespace pf::tray
