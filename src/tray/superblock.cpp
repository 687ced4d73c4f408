#include "tray/superblock.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/planted.hpp"
#include "tray/blank_check.hpp"

namespace pf::tray {

using runtime::Task;

namespace {

Task<Status> write_block(runtime::Disk& disk, Address address, MutableBytes block) {
    co_return co_await disk.write(uint64_t{address} * block_bytes, block);
}

// A nonce that differs from the one before even if the random numbers repeat (a fixed seed): what
// an earlier format left in the log must never pass for ours.
Task<Result<uint64_t>> choose_nonce(runtime::Disk& disk, Address second_copy, MutableBytes block) {
    uint64_t nonce = runtime::Reactor::current().rng().next();
    for (const Address address : {superblock_a_address, second_copy}) {
        PF_CO_TRY(co_await disk.read(uint64_t{address} * block_bytes, block));
        const Result<Superblock> before = decode_superblock(block);
        if (!before) continue;
        nonce += before->nonce * 2 + 1;
        break;
    }
    co_return nonce;
}

// So that no commit waits for a filesystem to find room for a log block, or to note that it was
// written for the first time.
Task<Status> write_log_once(runtime::Disk& disk, const Superblock& superblock) {
    constexpr uint64_t step_bytes = uint64_t{1} << 20;
    const uint64_t begin = uint64_t{log_start_address} * block_bytes;
    const uint64_t end = uint64_t{superblock.data_start} * block_bytes;
    runtime::Buffer zeros =
        co_await runtime::Reactor::current().buffers().allocate(std::min(step_bytes, end - begin));
    std::ranges::fill(zeros.bytes(), std::byte{0});
    for (uint64_t at = begin; at < end; at += zeros.size()) {
        PF_CO_TRY(co_await disk.write(at, zeros.bytes().first(std::min(zeros.size(), end - at))));
    }
    co_return Status{};
}

}  // namespace

Task<Status> format_tray(runtime::Disk& disk, FormatOptions options) {
    PF_CO_TRY_ASSIGN(Superblock superblock, choose_geometry(disk.size_bytes(), options.log_bytes));
    if (!options.force) PF_CO_TRY(co_await refuse_if_used(disk));
    runtime::Buffer buffer = co_await runtime::Reactor::current().buffers().allocate(block_bytes);
    superblock.cluster = options.cluster;
    superblock.tray = options.tray;

    const MutableBytes block = buffer.bytes();
    PF_CO_TRY_ASSIGN(superblock.nonce,
                     co_await choose_nonce(disk, superblock.second_copy(), block));

    // The old superblocks go first and the new ones come last, so that a crash in between leaves
    // no tray, never half of one.
    std::ranges::fill(block, std::byte{0});
    for (const Address address : {superblock_a_address, superblock.second_copy()}) {
        PF_CO_TRY(co_await write_block(disk, address, block));
    }
    PF_CO_TRY(co_await disk.flush());
    PF_CO_TRY(co_await write_log_once(disk, superblock));
    for (uint32_t slot = 0; slot < root_slots; ++slot) {
        Root root;
        root.number = slot + 1;
        root.incarnation = 0;
        root.log_start = 1;
        encode_root(root, superblock.tag(), block);
        const Address address = first_root_address + static_cast<Address>(root.number % root_slots);
        PF_CO_TRY(co_await write_block(disk, address, block));
    }
    PF_CO_TRY(co_await disk.flush());
    encode_superblock(superblock, block);
    for (const Address address : {superblock.second_copy(), superblock_a_address}) {
        PF_CO_TRY(co_await write_block(disk, address, block));
    }
    PF_CO_TRY(co_await disk.flush());
    co_return Status{};
}

Task<Result<Superblock>> SuperblockReader::read_copy(Address address) {
    runtime::Buffer buffer = co_await runtime::Reactor::current().buffers().allocate(block_bytes);
    PF_CO_TRY(co_await disk_.read(uint64_t{address} * block_bytes, buffer.bytes()));
    PF_CO_TRY_ASSIGN(const Superblock superblock, decode_superblock(buffer.bytes()));
    if (uint64_t{superblock.total_blocks} * block_bytes > disk_.size_bytes()) {
        co_return fail(Errc::corrupt,
                       fmt::format("superblock: bad total_blocks: {} blocks on a disk of {}",
                                   superblock.total_blocks, format_exact_size(disk_.size_bytes())));
    }
    co_return superblock;
}

Task<bool> SuperblockReader::has_root() {
    runtime::Buffer buffer = co_await runtime::Reactor::current().buffers().allocate(block_bytes);
    for (Address address = first_root_address; address < log_start_address; ++address) {
        const Status done = co_await disk_.read(uint64_t{address} * block_bytes, buffer.bytes());
        if (done && load<uint32_t>(buffer.bytes()) == root_magic) co_return true;
    }
    co_return false;
}

Task<Result<Superblock>> SuperblockReader::read() {
    if (disk_.size_bytes() < uint64_t{3} * block_bytes) {
        co_return fail(Errc::not_found, fmt::format("{}: too small to be a tray", disk_.name()));
    }
    const auto last = static_cast<Address>(
        std::min<uint64_t>(disk_.size_bytes() / block_bytes, max_tray_blocks) - 1);
    Result<Superblock> first = co_await read_copy(superblock_a_address);
    const Address second_address = first ? first->second_copy() : last;
    Result<Superblock> second = co_await read_copy(second_address);
    // A copy of another version is not damaged: a program that knows it wrote it, and may have been
    // about to write the other. It is never made again from that one.
    for (const auto* copy : {&first, &second}) {
        if (*copy || copy->error().code != Errc::unsupported_version) continue;
        co_return fail(Errc::unsupported_version,
                       fmt::format("{}: {}", disk_.name(), copy->error().message));
    }
    if (!first && !second) {
        const bool none =
            first.error().code == Errc::not_found && second.error().code == Errc::not_found;
        const bool roots = co_await has_root();
        if (none && !roots) {
            co_return fail(Errc::not_found, fmt::format("{}: not a tray", disk_.name()));
        }
        co_return fail(Errc::corrupt,
                       fmt::format("{}: both superblocks are unusable: {}; {}", disk_.name(),
                                   first.error().text(), second.error().text()));
    }
    for (const auto* copy : {&first, &second}) {
        if (*copy) continue;
        const bool is_first = copy == &first;
        warnings_.push_back(fmt::format("{}: superblock {} is damaged ({}), the copy is used",
                                        disk_.name(), is_first ? 'A' : 'B', copy->error().text()));
        damaged_.push_back(is_first ? superblock_a_address : second_address);
    }
    if (first && second && *first != *second) {
        co_return fail(Errc::corrupt,
                       fmt::format("{}: the two superblocks disagree", disk_.name()));
    }
    co_return first ? *first : *second;
}

Task<Status> SuperblockReader::repair(const Superblock& superblock) {
    if (damaged_.empty() || planted("superblock_not_repaired")) co_return Status{};
    runtime::Buffer buffer = co_await runtime::Reactor::current().buffers().allocate(block_bytes);
    encode_superblock(superblock, buffer.bytes());
    for (const Address address : damaged_) {
        PF_CO_TRY(co_await disk_.write(uint64_t{address} * block_bytes, buffer.bytes()));
    }
    PF_CO_TRY(co_await disk_.flush());
    co_return Status{};
}

}  // namespace pf::tray
