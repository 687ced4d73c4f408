// The volume behind volume.hpp. Normal I/O is plain calls: submit() cuts pieces and issues them on
// the shard's channel, the channel's completion finishes them; no coroutine takes part. Coroutines
// are for what is rare: connecting, locating, opening sessions, closing.
//
//   volume_core.cpp    submit, cut, issue, finish
//   volume_faults.cpp  what is done about every answer that is not "ok"; deadlines; ending
//   shard_link.cpp     the way to a shard: locate, connect, session, resend
#pragma once

#include <deque>

#include "client/conductor_link.hpp"
#include "client/io_state.hpp"

namespace pf::client {

struct OpenedVolume {
    VolumeInfo info;
    uint64_t session = 0;
    uint64_t writer_token = 0;
    uint64_t handle = 0;
};

[[nodiscard]] VolumeInfo info_of(const pureflash::v1::Volume& volume);

class VolumeCore final : public Volume, private ConductorLink::Handle {
  public:
    // Ids of a session that a store remembers for each shard (R8): no more may be between the
    // lowest outstanding one and the next.
    static constexpr uint64_t request_window = 1024;
    static constexpr uint8_t max_rereads = 1;
    static constexpr uint8_t max_payload_copies = 8;
    static constexpr runtime::Nanos close_patience = 30 * runtime::seconds;

    // `conductor` outlives the volume.
    VolumeCore(ConductorLink& conductor, const ClusterOptions& options, OpenedVolume opened);
    ~VolumeCore() override = default;

    [[nodiscard]] Status submit(Io& io) override;
    [[nodiscard]] const VolumeInfo& info() const override { return info_; }
    [[nodiscard]] const VolumeCounters& counters() const override { return counters_; }
    [[nodiscard]] runtime::Task<Result<std::vector<Extent>>> block_states(uint64_t offset,
                                                                          uint64_t length,
                                                                          uint32_t limit) override;
    [[nodiscard]] runtime::Task<Status> refresh() override;
    [[nodiscard]] runtime::Task<Status> close() override;

  private:
    // The normal way.
    [[nodiscard]] Status check(const Io& io) const;
    void start(Io& io);
    void pump();
    bool cut(OpenIo& open);
    bool cut_one(OpenIo& open);
    bool prepare(Piece& piece, OpenIo& open, Cut part);
    bool prepare_read(Piece& piece, const Io& io, IovCursor& cursor);
    bool prepare_write(Piece& piece, const Io& io, IovCursor& cursor, bool zeroes_as_data);
    bool prepare_block_states(Piece& piece);
    iovec* take_slices(Piece& piece, size_t count);
    void place(Piece& piece);
    void issue(Piece& piece);
    static void on_complete(net::Request& request);
    void settle(Piece& piece, Errc result);
    void finish_piece(Piece& piece);
    void finish_io(OpenIo& open);
    void complete_flushes();
    ShardLink& link_of(uint32_t index);

    // Faults.
    void on_trouble(Piece& piece);
    void on_refusal(Piece& piece, Errc status);
    void send_again(Piece& piece);
    void copy_and_resend(Piece& piece);
    static bool make_stable_copy(Piece& piece);
    void issue_abort(Piece& piece);
    static void on_abort_complete(net::Request& request);
    void watch_deadline(OpenIo& open);
    void expire_due();
    void expire(OpenIo& open);
    void expire(Piece& piece);
    [[nodiscard]] bool overlaps_expired(const OpenIo& open) const;
    void release_held();
    void fail_handle(Errc code);
    void fail_everything();
    void fail_pieces();
    void drop_links();
    void fail_shard(ShardLink& link);
    [[nodiscard]] bool undecided(const Piece& piece) const;
    void kick(runtime::Nanos delay = 0);
    void on_kick();

    // The way to a shard.
    void serve(ShardLink& link);
    [[nodiscard]] runtime::Task<void> serve_link(ShardLink* link);
    [[nodiscard]] runtime::Task<void> turn_link(ShardLink* link);
    [[nodiscard]] runtime::Task<Status> locate(ShardLink* link);
    [[nodiscard]] runtime::Task<Status> connect(ShardLink* link);
    void make_room();
    [[nodiscard]] runtime::Task<void> watch(ShardLink* link);
    [[nodiscard]] runtime::Task<void> drop(ShardLink* link);
    [[nodiscard]] runtime::Task<Status> open_session(ShardLink* link);
    [[nodiscard]] runtime::Task<void> close_session(ShardLink* link);
    [[nodiscard]] runtime::Task<void> back_off(ShardLink* link);
    void issue_pending(ShardLink& link);
    void fail_unsent_writes(ShardLink& link, Errc code);

    [[nodiscard]] runtime::Task<void> announce() override;

    ConductorLink& conductor_;
    ClusterOptions options_;
    VolumeInfo info_;
    uint64_t session_;
    uint64_t writer_token_;
    uint64_t handle_;
    VolumeCounters counters_;
    runtime::Reactor& reactor_;

    std::deque<OpenIo> opens_;
    std::deque<Piece> pieces_;
    List<Link<OpenIo>> free_opens_;
    List<Link<Piece>> free_pieces_;
    List<Io> waiting_;                  // beyond `depth`
    List<Link<OpenIo>> to_cut_;         // not wholly cut, in order
    List<Link<OpenIo>> nothing_to_do_;  // wholly cut into no piece: a discard below a block
    List<Link<OpenIo>> held_;           // behind an expired write that they overlap (R10)
    List<Link<OpenIo>> writes_;         // in the order they came, with the flushes among them
    List<Link<OpenIo>> deadlines_;      // in the order they came: one timeout for all
    std::vector<std::unique_ptr<ShardLink>> links_;  // by shard index; made when first used
    uint32_t channels_ = 0;                          // of all links
    uint64_t commands_ = 0;                          // sent, as a clock
    uint32_t unfinished_ = 0;                        // I/Os accepted and not completed
    uint32_t expired_writes_ = 0;                    // pieces whose fate is not known yet
    bool completing_flushes_ = false;
    bool pumping_ = false;
    bool wants_memory_ = false;  // something waits for pool memory
    bool closing_ = false;
    bool stopping_ = false;               // the links end
    Errc failed_ = Errc::ok;              // the whole handle is finished
    runtime::Nanos undecided_until_ = 0;  // how long stores are asked for the fate of its writes
    bool links_dropped_ = false;          // since it failed
    runtime::Pause close_pause_;          // ends when `unfinished_` is 0
    runtime::WaitGroup tasks_;            // our coroutines
    VolumeTimer kick_timer_;
    VolumeTimer deadline_timer_;
};

}  // namespace pf::client
