// The option phase of an NBD connection as a state machine without I/O: an option goes in, reply
// bytes come out, and a verdict says how the connection goes on.
//
// Bounds: 256 options per connection, 64 KiB per option. Thread rule: belongs to one connection.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "attach/nbd_protocol.hpp"

namespace pf::attach::nbd {

// What one connection may choose from: names and sizes as they were when it connected.
struct ExportInfo {
    std::string name;
    uint64_t size_bytes = 0;
    bool read_only = false;
};

// What the transmission phase needs to know of the negotiation.
struct Agreement {
    size_t export_index = 0;
    uint64_t size_bytes = 0;
    bool read_only = false;
    bool structured_replies = false;
    bool base_allocation = false;
};

enum class Verdict : uint8_t { next_option, transmission, end };

inline constexpr uint32_t min_block_size_bytes = 512;
inline constexpr uint32_t preferred_block_size_bytes = 4096;
inline constexpr uint32_t max_payload_bytes = 32u << 20;

class Negotiation {
  public:
    static constexpr uint32_t max_options = 256;

    explicit Negotiation(std::vector<ExportInfo> exports) : exports_(std::move(exports)) {}

    void client_flags(uint32_t flags) { client_flags_ = flags; }
    // Appends the reply to `reply`. An error ends the connection; it says what the client did.
    [[nodiscard]] Result<Verdict> option(const OptionHeader& header, Bytes data,
                                         std::vector<std::byte>& reply);
    // Valid after Verdict::transmission.
    [[nodiscard]] const Agreement& agreement() const { return agreement_; }

  private:
    [[nodiscard]] Result<Verdict> export_name(Bytes data, Writer writer);
    [[nodiscard]] Verdict list(Bytes data, Writer writer);
    [[nodiscard]] Verdict info_or_go(uint32_t option, Bytes data, Writer writer);
    [[nodiscard]] Verdict structured_reply(Bytes data, Writer writer);
    [[nodiscard]] Verdict meta_context(uint32_t option, Bytes data, Writer writer);
    [[nodiscard]] const ExportInfo* find(std::string_view name) const;
    void agree_on(const ExportInfo& chosen);
    [[nodiscard]] uint16_t transmission_flags(const ExportInfo& chosen) const;

    std::vector<ExportInfo> exports_;
    uint32_t client_flags_ = 0;
    uint32_t options_seen_ = 0;
    const ExportInfo* context_export_ = nullptr;  // for which base:allocation was selected
    Agreement agreement_;
};

}  // namespace pf::attach::nbd
