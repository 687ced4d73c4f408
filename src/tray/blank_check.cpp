#include "tray/blank_check.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "tray/format.hpp"

namespace pf::tray {

using runtime::Task;

namespace {

constexpr uint64_t head_blocks = 1024;
constexpr uint64_t tail_blocks = 256;
constexpr uint64_t samples = 64;
constexpr uint64_t step_blocks = 256;

Task<Status> refuse_if_tray(runtime::Disk& disk, uint64_t block, MutableBytes scratch) {
    PF_CO_TRY(co_await disk.read(block * block_bytes, scratch));
    const Result<Superblock> found = decode_superblock(scratch);
    if (!found && found.error().code == Errc::not_found) co_return Status{};
    co_return fail(Errc::already_exists,
                   fmt::format("{} holds a tray: 'pfcli tray add {} --force' formats it",
                               disk.name(), disk.name()));
}

Task<Status> refuse_if_written(runtime::Disk& disk, uint64_t block, MutableBytes scratch) {
    PF_CO_TRY(co_await disk.read(block * block_bytes, scratch));
    const auto data = std::ranges::find_if(scratch, [](std::byte b) { return b != std::byte{0}; });
    if (data == scratch.end()) co_return Status{};
    const uint64_t at = block * block_bytes + static_cast<uint64_t>(data - scratch.begin());
    co_return fail(
        Errc::already_exists,
        fmt::format(
            "{} is not blank: it has data at byte {}; 'pfcli tray add {} --force' formats it",
            disk.name(), at, disk.name()));
}

}  // namespace

Task<Status> refuse_if_used(runtime::Disk& disk) {
    const uint64_t blocks = disk.size_bytes() / block_bytes;
    const runtime::Buffer buffer =
        co_await runtime::Reactor::current().buffers().allocate(step_blocks * block_bytes);
    const MutableBytes one = buffer.bytes().first(block_bytes);
    // A tray that lost its first copy still shows at its end.
    for (const uint64_t block : {uint64_t{0}, blocks - 1}) {
        PF_CO_TRY(co_await refuse_if_tray(disk, block, one));
    }
    const uint64_t head = std::min(head_blocks, blocks);
    const uint64_t tail = std::max(head, blocks - std::min(tail_blocks, blocks));
    for (const auto& [begin, end] : {std::pair{uint64_t{0}, head}, std::pair{tail, blocks}}) {
        for (uint64_t block = begin; block < end; block += step_blocks) {
            const size_t bytes = std::min(step_blocks, end - block) * block_bytes;
            PF_CO_TRY(co_await refuse_if_written(disk, block, buffer.bytes().first(bytes)));
        }
    }
    for (uint64_t sample = 1; sample < samples; ++sample) {
        const uint64_t block = blocks / samples * sample;
        PF_CO_TRY(co_await refuse_if_written(disk, block, one));
    }
    co_return Status{};
}

}  // namespace pf::tray
