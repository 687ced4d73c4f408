// Borrowed bytes and explicit little-endian access to them. The owner of the memory outlives the
// view.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace pf {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

static_assert(std::endian::native == std::endian::little,
              "on-disk and wire structs are copied as they are: little-endian hosts only");

[[nodiscard]] inline Bytes as_bytes(std::string_view text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
[[nodiscard]] inline std::string_view as_text(Bytes bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Reads and writes a trivially copyable value at an offset that the caller has checked.
template <class T>
    requires std::is_trivially_copyable_v<T>
[[nodiscard]] T load(Bytes from, size_t offset = 0) {
    T value;
    std::memcpy(&value, from.data() + offset, sizeof(T));
    return value;
}
template <class T>
    requires std::is_trivially_copyable_v<T>
void store(MutableBytes to, const T& value, size_t offset = 0) {
    std::memcpy(to.data() + offset, &value, sizeof(T));
}

[[nodiscard]] constexpr uint64_t round_up(uint64_t value, uint64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}
[[nodiscard]] constexpr uint64_t round_down(uint64_t value, uint64_t multiple) {
    return value / multiple * multiple;
}

}  // namespace pf
