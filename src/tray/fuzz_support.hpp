// For the fuzz targets: a small tray to decode against, and checksums made right.
#pragma once

#include "base/crc32c.hpp"
#include "tray/format.hpp"

namespace pf::tray {

inline const Superblock& fuzz_superblock() {
    static const Superblock superblock = [] {
        Superblock made = *choose_geometry(uint64_t{16} << 20, uint64_t{64} << 10);
        made.nonce = 1;
        return made;
    }();
    return superblock;
}

// Gives a struct at the start of `block` its magic, version and checksum.
template <class Format>
void fix_struct(MutableBytes block, uint32_t magic) {
    auto format = load<Format>(block);
    format.magic = magic;
    format.version = format_version;
    format.crc = 0;
    format.crc = crc32c(Bytes(reinterpret_cast<const std::byte*>(&format), sizeof(format)));
    store(block, format);
}

// The same for a struct whose checksum covers the whole block. Returns the checksum.
template <class Format>
uint32_t fix_block(MutableBytes block, uint32_t magic) {
    auto format = load<Format>(block);
    format.magic = magic;
    format.version = format_version;
    format.tray_tag = fuzz_superblock().tag();
    format.crc = 0;
    store(block, format);
    format.crc = crc32c(block);
    store(block, format);
    return format.crc;
}

}  // namespace pf::tray
