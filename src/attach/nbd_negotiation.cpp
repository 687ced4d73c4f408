#include "attach/nbd_negotiation.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace pf::attach::nbd {

Result<Verdict> Negotiation::option(const OptionHeader& header, Bytes data,
                                    std::vector<std::byte>& reply) {
    if (++options_seen_ > max_options)
        return fail(Errc::protocol, fmt::format("more than {} options", max_options));
    const Writer writer(reply);
    const uint32_t option = header.option;
    switch (static_cast<Option>(option)) {
        case Option::export_name:
            return export_name(data, writer);
        case Option::abort:
            put_option_reply(writer, option, OptionReply::ack, {});
            return Verdict::end;
        case Option::list:
            return list(data, writer);
        case Option::starttls:
            put_option_reply(writer, option, OptionReply::error_policy,
                             "this server does not offer TLS");
            return Verdict::next_option;
        case Option::info:
        case Option::go:
            return info_or_go(option, data, writer);
        case Option::structured_reply:
            return structured_reply(data, writer);
        case Option::list_meta_context:
        case Option::set_meta_context:
            return meta_context(option, data, writer);
    }
    put_option_reply(writer, option, OptionReply::error_unsupported, "unknown option");
    return Verdict::next_option;
}

// The old way in: it has no error reply, so an unknown name ends the connection.
Result<Verdict> Negotiation::export_name(Bytes data, Writer writer) {
    PF_TRY_ASSIGN(const std::string name, decode_export_name(data));
    const ExportInfo* chosen = find(name);
    if (chosen == nullptr)
        return fail(Errc::not_found, fmt::format("export name '{}' is not offered", name));
    agree_on(*chosen);
    writer.put(chosen->size_bytes).put(transmission_flags(*chosen));
    if ((client_flags_ & no_zeroes) == 0) writer.zeroes(124);
    return Verdict::transmission;
}

Verdict Negotiation::list(Bytes data, Writer writer) {
    const auto option = static_cast<uint32_t>(Option::list);
    if (!data.empty()) {
        put_option_reply(writer, option, OptionReply::error_invalid, "option length must be 0");
        return Verdict::next_option;
    }
    for (const ExportInfo& offered : exports_) put_listed_export(writer, offered.name);
    put_option_reply(writer, option, OptionReply::ack, {});
    return Verdict::next_option;
}

Verdict Negotiation::info_or_go(uint32_t option, Bytes data, Writer writer) {
    const auto request = decode_info_request(data);
    if (!request) {
        put_option_reply(writer, option, OptionReply::error_invalid, request.error().message);
        return Verdict::next_option;
    }
    const ExportInfo* chosen = find(request->name);
    if (chosen == nullptr) {
        put_option_reply(writer, option, OptionReply::error_unknown, "no such export");
        return Verdict::next_option;
    }
    put_export_info(writer, option, chosen->size_bytes, transmission_flags(*chosen));
    put_block_size_info(writer, option, min_block_size_bytes, preferred_block_size_bytes,
                        max_payload_bytes);
    if (std::ranges::count(request->types, static_cast<uint16_t>(InfoType::name)) > 0)
        put_name_info(writer, option, chosen->name);
    put_option_reply(writer, option, OptionReply::ack, {});
    if (option == static_cast<uint32_t>(Option::info)) return Verdict::next_option;
    agree_on(*chosen);
    return Verdict::transmission;
}

Verdict Negotiation::structured_reply(Bytes data, Writer writer) {
    const auto option = static_cast<uint32_t>(Option::structured_reply);
    if (!data.empty()) {
        put_option_reply(writer, option, OptionReply::error_invalid, "option length must be 0");
        return Verdict::next_option;
    }
    agreement_.structured_replies = true;
    put_option_reply(writer, option, OptionReply::ack, {});
    return Verdict::next_option;
}

Verdict Negotiation::meta_context(uint32_t option, Bytes data, Writer writer) {
    const bool set = option == static_cast<uint32_t>(Option::set_meta_context);
    const auto refuse = [&](OptionReply why, std::string_view text) {
        put_option_reply(writer, option, why, text);
        return Verdict::next_option;
    };
    // A SET replaces what was selected before, also when it fails.
    if (set) context_export_ = nullptr;
    if (!agreement_.structured_replies)
        return refuse(OptionReply::error_invalid, "structured replies come first");
    const auto request = decode_meta_context_request(data);
    if (!request) return refuse(OptionReply::error_invalid, request.error().message);
    const ExportInfo* chosen = find(request->name);
    if (chosen == nullptr) return refuse(OptionReply::error_unknown, "no such export");

    bool wanted = !set && request->queries.empty();
    for (const std::string& query : request->queries)
        wanted = wanted || query == base_allocation || (!set && query == "base:");
    if (wanted) {
        put_meta_context(writer, option, set ? base_allocation_id : 0, base_allocation);
        if (set) context_export_ = chosen;
    }
    put_option_reply(writer, option, OptionReply::ack, {});
    return Verdict::next_option;
}

const ExportInfo* Negotiation::find(std::string_view name) const {
    // The empty name asks for the default export: the first one.
    if (name.empty() && !exports_.empty()) return &exports_.front();
    const auto found = std::ranges::find(exports_, name, &ExportInfo::name);
    return found == exports_.end() ? nullptr : &*found;
}

void Negotiation::agree_on(const ExportInfo& chosen) {
    agreement_.export_index = static_cast<size_t>(&chosen - exports_.data());
    agreement_.size_bytes = chosen.size_bytes;
    agreement_.read_only = chosen.read_only;
    // Contexts selected for another export do not carry over.
    agreement_.base_allocation = context_export_ == &chosen;
}

uint16_t Negotiation::transmission_flags(const ExportInfo& chosen) const {
    // Several connections are coherent: a completed write is durable, and visible through all.
    uint16_t flags = flag_has_flags | flag_send_flush | flag_can_multi_conn;
    if (agreement_.structured_replies) flags |= flag_send_df;
    if (chosen.read_only) return flags | flag_read_only;
    return flags | flag_send_fua | flag_send_trim | flag_send_write_zeroes | flag_send_fast_zero;
}

}  // namespace pf::attach::nbd
