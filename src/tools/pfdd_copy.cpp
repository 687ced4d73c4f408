#include "tools/pfdd_copy.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/assert.hpp"
#include "base/units.hpp"

namespace pf::tools {

namespace {

constexpr int64_t poll_us = 100'000;
constexpr uint64_t max_zeroed_bytes = uint64_t{1} << 30;  // by one command
constexpr uint64_t max_memory_bytes = uint64_t{256} << 20;

bool all_zero(Bytes bytes) {
    return bytes.empty() || (bytes[0] == std::byte{0} &&
                             std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace

Status check_skip(const DdOptions& options, const Endpoint& input) {
    const auto size = input.size();
    if (!size || options.skip_bytes <= *size) return {};
    return fail(Errc::out_of_range, fmt::format("cannot skip {} bytes: '{}' has {}",
                                                options.skip_bytes, input.name(), *size));
}

void Copy::FreeMemory::operator()(std::byte* memory) const {
    std::free(memory);
}

Copy::Copy(const DdOptions& options, Cluster& cluster, Endpoint& input, Endpoint& output)
    : options_(options),
      cluster_(cluster),
      input_(input),
      output_(output),
      input_holes_(input, cluster),
      output_holes_(output, cluster) {
    const bool any_volume = input.is_volume() || output.is_volume();
    const uint64_t fitting = std::max<uint64_t>(1, max_memory_bytes / options.block_bytes);
    const size_t count = any_volume ? std::min<uint64_t>(options.depth, fitting) : 1;
    const size_t stride = round_up(options.block_bytes, block_bytes);
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(block_bytes, count * stride)));
    PF_ASSERT(memory_ != nullptr);
    blocks_.resize(count);
    for (size_t i = 0; i < count; ++i) {
        blocks_[i].copy = this;
        blocks_[i].memory = memory_.get() + i * stride;
    }
}

Status Copy::prepare() {
    PF_TRY(check_skip(options_, input_));
    if (const auto size = input_.size()) expected_ = *size - options_.skip_bytes;
    if (options_.count_bytes)
        expected_ = std::min(expected_.value_or(*options_.count_bytes), *options_.count_bytes);
    PF_TRY(check_same());
    if (output_.is_volume()) {
        const uint64_t size = *output_.size();
        const bool fits = options_.seek_bytes <= size &&
                          (!input_.size() || expected_.value_or(0) <= size - options_.seek_bytes);
        if (!fits)
            return fail(Errc::out_of_range,
                        fmt::format("{} at offset {} do not fit into '{}', which has {}; nothing "
                                    "was written",
                                    format_exact_size(expected_.value_or(0)), options_.seek_bytes,
                                    output_.name(), format_exact_size(size)));
    } else if (!options_.no_truncate) {
        PF_TRY(output_.truncate(options_.seek_bytes));
    }
    if (!input_.seekable() && options_.skip_bytes > 0) PF_TRY(input_.skip(options_.skip_bytes));
    if (!output_.seekable() && options_.seek_bytes > 0)
        return fail(Errc::invalid_argument,
                    fmt::format("seek: '{}' cannot be positioned", output_.name()));
    return {};
}

// Reading what was just written, or what was just cut off, is never meant.
Status Copy::check_same() const {
    if (!input_.same_as(output_)) return {};
    const bool cut_off = !output_.is_volume() && !options_.no_truncate;
    const uint64_t apart = options_.skip_bytes > options_.seek_bytes
                               ? options_.skip_bytes - options_.seek_bytes
                               : options_.seek_bytes - options_.skip_bytes;
    const bool overlap = apart > 0 && apart < expected_.value_or(UINT64_MAX);
    if (!cut_off && !overlap) return {};
    return fail(Errc::invalid_argument,
                fmt::format("'{}' is both source and target, and the copy would overwrite what is "
                            "still to be read; copy to another {} first",
                            input_.name(), input_.is_volume() ? "volume" : "file"));
}

Status Copy::run(const std::function<bool()>& stop, const std::function<void()>& tick,
                 std::chrono::milliseconds stop_limit) {
    stop_ = stop;
    stop_limit_ = stop_limit;
    input_.stop_when([this] { return !result_ || stop_(); });
    output_.stop_when(stop);
    input_.meanwhile([this, &tick] {
        tick();
        if (!busy()) return false;
        cluster_.poll(poll_us);
        return true;
    });
    for (Holes* each : {&input_holes_, &output_holes_})
        each->wait_while([this, &tick] {
            tick();
            return !overdue();
        });
    while (result_) {
        if (stop_()) input_ended_ = true;
        const bool moved = advance();
        tick();
        if (moved) continue;
        // Not busy does not mean done: what was under way may have ended while we looked.
        if (busy()) {
            if (!overdue()) cluster_.poll(poll_us);
        } else if (input_ended_ && next_write_ == next_read_) {
            break;
        }
    }
    // What is under way still uses our memory.
    while (busy() && !overdue()) {
        cluster_.poll(poll_us);
        tick();
    }
    if (result_) result_ = finish_output();
    return result_;
}

// Whether what is under way was waited for long enough after an error or the stop. A store that is
// away may never answer.
bool Copy::overdue() {
    if (gave_up_ || (result_ && !stop_())) return gave_up_;
    const auto now = std::chrono::steady_clock::now();
    if (!stopped_at_) stopped_at_ = now;
    gave_up_ = now - *stopped_at_ >= stop_limit_;
    if (gave_up_) say_given_up();
    return gave_up_;
}

// The first error stays the one that is returned.
void Copy::say_given_up() {
    const std::string text = fmt::format("what was under way did not end within {} s: given up",
                                         std::chrono::duration<double>(stop_limit_).count());
    if (result_) return fail_with({Errc::timed_out, "interrupted, and " + text});
    result_.error().message += "; " + text;
}

// Begins whatever can begin; false when everything waits.
bool Copy::advance() {
    bool moved = false;
    while (oldest_ < next_write_ && blocks_[oldest_ % blocks_.size()].state == Block::State::free)
        ++oldest_;
    while (result_ && !input_ended_ && next_read_ - oldest_ < blocks_.size()) {
        const uint64_t before = planned_;
        if (!start_read(blocks_[next_read_ % blocks_.size()])) {
            moved = moved || planned_ != before;  // over a hole
            break;
        }
        ++next_read_;
        moved = true;
        if (!input_.is_volume()) break;  // one at a time: what was read shall leave meanwhile
    }
    while (result_ && next_write_ < next_read_) {
        Block& block = blocks_[next_write_ % blocks_.size()];
        if (block.state != Block::State::read || !start_write(block)) break;
        ++next_write_;
        moved = true;
    }
    cluster_.poll(0);
    return moved;
}

bool Copy::start_read(Block& block) {
    if (options_.sparse) {
        const uint64_t before = planned_;
        Result<bool> planned = plan_hole(block);
        if (!planned) {
            fail_with(std::move(planned).error());
            return false;
        }
        if (!result_ || planned_ != before) return *planned;
    }
    uint64_t wanted = options_.block_bytes;
    if (expected_) wanted = std::min(wanted, *expected_ - std::min(*expected_, planned_));
    if (wanted == 0) {
        input_ended_ = true;
        return false;
    }
    block.hole = false;
    block.at = planned_;
    const uint64_t offset = options_.skip_bytes + block.at;
    if (!input_.is_volume()) {
        auto got = input_.read({block.memory, wanted}, offset);
        if (!got) {
            fail_with(std::move(got).error());
            return false;
        }
        if (*got < wanted) input_ended_ = true;
        if (*got == 0) return false;
        block.bytes = *got;
        planned_ += *got;
        finish_read(block);
        return true;
    }
    // The end of a count may lie inside a sector.
    const uint64_t sectors = round_up(wanted, sector_bytes);
    block.state = Block::State::reading;
    block.bytes = wanted;
    const int accepted = pfbd_read(
        input_.volume(), block.memory, sectors, offset,
        [](void* argument, int status) {
            auto& done = *static_cast<Block*>(argument);
            done.status = status;
            done.copy->finish_read(done);
        },
        &block);
    if (accepted == 0) {
        planned_ += wanted;
        return true;
    }
    block.state = Block::State::free;
    if (accepted != -EAGAIN) fail_with(volume_error(input_, "read", offset, accepted));
    return false;
}

// Goes over one hole of the source without reading it, in whole blocks. True: `block` has it, to be
// written. What the target need not be told is only counted.
Result<bool> Copy::plan_hole(Block& block) {
    const uint64_t left = expected_.value_or(0) - std::min(expected_.value_or(0), planned_);
    if (left == 0) return false;
    PF_TRY_ASSIGN(Run run, input_holes_.at(options_.skip_bytes + planned_, left));
    bool nothing_to_do = output_.truncatable() && !options_.no_truncate;
    if (run.hole && output_.is_volume()) {
        PF_TRY_ASSIGN(const Run there, output_holes_.at(options_.seek_bytes + planned_, run.bytes));
        nothing_to_do = there.hole;
        run.bytes = std::min(there.bytes, there.hole ? run.bytes : max_zeroed_bytes);
    }
    if (!nothing_to_do && !output_.is_volume())
        run.bytes = std::min<uint64_t>(run.bytes, options_.block_bytes);
    if (run.bytes < left) run.bytes -= run.bytes % options_.block_bytes;
    if (!run.hole || run.bytes == 0) return false;
    block.at = planned_;
    planned_ += run.bytes;
    count(run.bytes, counts_.full_in, counts_.partial_in);
    if (nothing_to_do) {
        count(run.bytes, counts_.full_out, counts_.partial_out);
        counts_.bytes += run.bytes;
        return false;
    }
    block.hole = output_.is_volume();
    if (!block.hole) std::memset(block.memory, 0, run.bytes);
    block.bytes = run.bytes;
    block.state = Block::State::read;
    return true;
}

void Copy::count(uint64_t bytes, uint64_t& full, uint64_t& partial) const {
    full += bytes / options_.block_bytes;
    partial += bytes % options_.block_bytes == 0 ? 0 : 1;
}

void Copy::finish_read(Block& block) {
    block.state = Block::State::read;
    if (block.status != 0) {
        const Error error =
            volume_error(input_, "read", options_.skip_bytes + block.at, block.status);
        block.state = Block::State::free;
        return fail_with(error);
    }
    count(block.bytes, counts_.full_in, counts_.partial_in);
}

bool Copy::start_write(Block& block) {
    const uint64_t offset = options_.seek_bytes + block.at;
    const bool hole = block.hole || (options_.sparse && all_zero({block.memory, block.bytes}));
    if (!output_.is_volume()) {
        // Without truncation old bytes may lie under a hole.
        const bool skip = hole && output_.truncatable() && !options_.no_truncate;
        if (!skip) {
            Status written = output_.write({block.memory, block.bytes}, offset);
            if (!written) {
                fail_with(std::move(written).error());
                return false;
            }
        }
        finish_write(block);
        return true;
    }
    block.written = round_up(block.bytes, sector_bytes);
    if (!hole) std::memset(block.memory + block.bytes, 0, block.written - block.bytes);
    if (block.written > *output_.size() - std::min(*output_.size(), offset)) {
        fail_with({Errc::no_space, fmt::format("'{}' ends at {} bytes: the input is longer",
                                               output_.name(), *output_.size())});
        return false;
    }
    const auto done = [](void* argument, int status) {
        auto& written = *static_cast<Block*>(argument);
        written.status = status;
        written.copy->finish_write(written);
    };
    block.state = Block::State::writing;
    const int accepted =
        hole ? pfbd_write_zeroes(output_.volume(), block.written, offset, 0, done, &block)
             : pfbd_write(output_.volume(), block.memory, block.written, offset, done, &block);
    if (accepted == 0) return true;
    block.state = Block::State::read;
    if (accepted != -EAGAIN) fail_with(volume_error(output_, "write", offset, accepted));
    return false;
}

void Copy::finish_write(Block& block) {
    block.state = Block::State::free;
    if (block.status != 0)
        return fail_with(
            volume_error(output_, "write", options_.seek_bytes + block.at, block.status));
    count(block.bytes, counts_.full_out, counts_.partial_out);
    counts_.bytes += block.bytes;
    if (output_.is_volume()) counts_.padded_bytes += block.written - block.bytes;
}

Status Copy::finish_output() {
    // A hole at the end is made by the size alone.
    if (options_.sparse && !options_.no_truncate && !output_.is_volume())
        PF_TRY(output_.truncate(options_.seek_bytes + planned_));
    if (options_.fsync) PF_TRY(output_.sync());
    return output_.close();
}

bool Copy::busy() const {
    if (input_holes_.asking() || output_holes_.asking()) return true;
    return std::ranges::any_of(blocks_, [](const Block& block) {
        return block.state == Block::State::reading || block.state == Block::State::writing;
    });
}

void Copy::fail_with(Error error) {
    if (result_) result_ = std::unexpected(std::move(error));
}

Error Copy::volume_error(const Endpoint& endpoint, const char* what, uint64_t offset,
                         int status) const {
    return {from_errno(-status), fmt::format("cannot {} '{}' at offset {}: {}", what,
                                             endpoint.name(), offset, std::strerror(-status))};
}

}  // namespace pf::tools
