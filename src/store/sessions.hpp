// What a shard remembers of its sessions while the store runs: the watermark below which requests
// are refused (their answers were received; a late copy must not run, R8), fencing, and what is in
// flight. What must survive a restart is in the tray. Late copies of refused requests are kept out
// by the worker: a session's new connection ends its older ones (R10).
//
// After a restart watermarks start at zero: the copies they keep out died with their connections.
// Thread rule: one reactor. Bounded: tray::Tray::max_sessions_per_shard plus `max_fenced`
// and `max_left`.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace pf::pfs {

struct Session {
    uint64_t id = 0;
    uint64_t lowest_outstanding = 0;
    uint32_t in_flight = 0;
    bool fenced = false;
};

class Sessions {
  public:
    static constexpr size_t max_fenced = 256;
    static constexpr size_t max_left = 256;

    [[nodiscard]] Session* find(uint64_t id) {
        for (Session& session : sessions_) {
            if (session.id == id) return &session;
        }
        return nullptr;
    }
    Session& add(uint64_t id) { return sessions_.emplace_back(Session{id, 0, 0, false}); }
    void remove(uint64_t id) {
        remove_if([id](const Session& session) { return session.id == id; });
    }
    template <class Predicate>
    void remove_if(Predicate predicate) {
        std::erase_if(sessions_, predicate);
    }
    [[nodiscard]] bool fenced(uint64_t id) const {
        for (const uint64_t known : fenced_) {
            if (known == id) return true;
        }
        return false;
    }
    // Refuses the session for as long as the store runs, or 256 other sessions were fenced. The
    // tray forgets it too, so that after a restart it is an unknown one.
    void fence(uint64_t id) {
        if (Session* session = find(id)) session->fenced = true;
        if (fenced(id)) return;
        if (fenced_.size() == max_fenced) fenced_.erase(fenced_.begin());
        fenced_.push_back(id);
    }

    // Connections that named a session in their handshake.
    void attach(uint64_t id) { connected_.push_back(id); }
    void detach(uint64_t id) {
        const auto found = std::find(connected_.begin(), connected_.end(), id);
        if (found == connected_.end()) return;
        connected_.erase(found);
        std::erase(left_, id);
        if (left_.size() == max_left) left_.erase(left_.begin());
        left_.push_back(id);
    }
    [[nodiscard]] bool connected(uint64_t id) const {
        return std::find(connected_.begin(), connected_.end(), id) != connected_.end();
    }
    // Of the sessions that the tray keeps, in the order they were opened, the one to give up first:
    // of those without a connection one that had none since the start, else the one that left
    // first. Nothing if all are connected.
    [[nodiscard]] std::optional<uint64_t> longest_gone(const std::vector<uint64_t>& opened) const {
        std::optional<uint64_t> found;
        auto found_at = left_.end();
        for (const uint64_t id : opened) {
            if (connected(id)) continue;
            const auto at = std::find(left_.begin(), left_.end(), id);
            if (at == left_.end()) return id;
            if (found && at > found_at) continue;
            found = id;
            found_at = at;
        }
        return found;
    }
    // Whoever left until now is given up before all who leave later.
    void forget_who_left() { left_.clear(); }

  private:
    std::vector<uint64_t> left_;       // without a connection, the last to leave at the end
    std::vector<uint64_t> connected_;  // one entry per connection
    std::vector<Session> sessions_;    // few: searched in line
    std::vector<uint64_t> fenced_;
};

}  // namespace pf::pfs
