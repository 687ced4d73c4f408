// A volume in memory, for tests of the front ends: answers from the reactor's loop, after the turn
// in which it was asked, not always in order. Knows holes, zeroes and data.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/units.hpp"
#include "client/volume.hpp"

namespace pf::attach {

class FakeVolume : public client::Volume {
  public:
    FakeVolume(std::string name, uint64_t size_bytes, bool read_only = false)
        : bytes_(size_bytes), states_(size_bytes / block_bytes, 0) {
        info_.id = 1;
        info_.name = std::move(name);
        info_.size_bytes = size_bytes;
        info_.shard_bytes = default_shard_bytes;
        info_.replicas = 1;
        info_.read_only = read_only;
    }

    Status submit(client::Io& io) override {
        const bool ranged = io.kind != client::IoKind::flush;
        if (ranged && (io.length == 0 || io.length % sector_bytes != 0))
            return fail(Errc::invalid_argument);
        if (ranged && (io.offset > info_.size_bytes || io.length > info_.size_bytes - io.offset))
            return fail(Errc::out_of_range);
        waiting_.push_back(io);
        if (!answering_ && !held_) start_answering();
        return {};
    }
    const client::VolumeInfo& info() const override { return info_; }
    const client::VolumeCounters& counters() const override { return counters_; }
    runtime::Task<Result<std::vector<client::Extent>>> block_states(uint64_t offset,
                                                                    uint64_t length,
                                                                    uint32_t limit) override {
        co_await runtime::yield();
        std::vector<client::Extent> extents;
        for (uint64_t at = offset; at < offset + length;) {
            const uint64_t end =
                std::min(offset + length, round_down(at, block_bytes) + block_bytes);
            const uint32_t state = states_[at / block_bytes];
            if (extents.empty() || extents.back().state != state) {
                if (extents.size() == limit) break;
                extents.push_back({0, state});
            }
            extents.back().length_bytes += end - at;
            at = end;
        }
        co_return extents;
    }
    runtime::Task<Status> refresh() override {
        ++refreshes;
        co_await runtime::yield();
        if (next_size_bytes > 0) {
            bytes_.resize(next_size_bytes);
            states_.resize(next_size_bytes / block_bytes);
            info_.size_bytes = next_size_bytes;
        }
        co_return Status{};
    }
    runtime::Task<Status> close() override { co_return Status{}; }

    // Holds every I/O until release().
    void hold() { held_ = true; }
    void release() {
        held_ = false;
        if (!waiting_.empty()) start_answering();
    }

    std::vector<std::byte>& bytes() { return bytes_; }
    uint64_t next_size_bytes = 0;  // what the next refresh finds
    Errc fail_next = Errc::ok;     // the next I/O ends with this
    uint64_t refreshes = 0;
    uint64_t flushes = 0;
    uint64_t writes = 0;

  private:
    void start_answering() {
        answering_ = true;
        runtime::Reactor::current().spawn(answer());
    }
    runtime::Task<void> answer() {
        while (!waiting_.empty() && !held_) {
            co_await runtime::yield();
            List<client::Io> now;
            while (client::Io* io = waiting_.pop_front()) {
                // Every third one overtakes, so that replies come out of order.
                if (++answered_ % 3 == 0)
                    now.push_front(*io);
                else
                    now.push_back(*io);
            }
            while (client::Io* io = now.pop_front()) {
                io->result = std::exchange(fail_next, Errc::ok);
                if (io->result == Errc::ok) apply(*io);
                io->complete(*io);
            }
        }
        answering_ = false;
    }
    void apply(client::Io& io) {
        std::byte* at = bytes_.data() + io.offset;
        switch (io.kind) {
            case client::IoKind::read:
                for (const iovec& part : io.data) {
                    std::memcpy(part.iov_base, at, part.iov_len);
                    at += part.iov_len;
                }
                break;
            case client::IoKind::write:
                ++writes;
                for (const iovec& part : io.data) {
                    std::memcpy(at, part.iov_base, part.iov_len);
                    at += part.iov_len;
                }
                mark(io, 2, 2);
                break;
            case client::IoKind::flush:
                ++flushes;
                break;
            case client::IoKind::discard:
            case client::IoKind::write_zeroes:
                std::memset(at, 0, io.length);
                mark(io, io.kind == client::IoKind::discard ? 0 : 1, 2);
                break;
            case client::IoKind::compare_and_write:
            case client::IoKind::block_states:
                io.result = Errc::unsupported;
                break;
        }
    }
    // Whole blocks take `whole`; blocks touched in part take `part`.
    void mark(const client::Io& io, uint8_t whole, uint8_t part) {
        for (uint64_t at = round_down(io.offset, block_bytes); at < io.offset + io.length;
             at += block_bytes) {
            const bool covered = at >= io.offset && at + block_bytes <= io.offset + io.length;
            uint8_t& state = states_[at / block_bytes];
            state = covered ? whole : std::max(state, part);
        }
    }

    client::VolumeInfo info_;
    client::VolumeCounters counters_;
    std::vector<std::byte> bytes_;
    std::vector<uint8_t> states_;
    List<client::Io> waiting_;
    bool answering_ = false;
    bool held_ = false;
    uint64_t answered_ = 0;
};

}  // namespace pf::attach
