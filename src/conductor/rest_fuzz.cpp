// Everything that REST takes from a stranger: bodies and parameters. Nothing may crash, and what is
// accepted must survive the way back to JSON.
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "conductor/rest_json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace pf::conductor;
    const std::string_view body(reinterpret_cast<const char*>(data), size);
    if (const auto parsed = parse_create_volume(body)) {
        pureflash::v1::Volume volume;
        volume.set_name(parsed->name());
        volume.set_size_bytes(parsed->size_bytes());
        const auto back = nlohmann::json::parse(to_text(to_json(volume)));
        PF_ASSERT(back["size_bytes"].get<uint64_t>() == parsed->size_bytes());
        PF_ASSERT(back["name"].get<std::string>() == parsed->name());
        [[maybe_unused]] const auto checked = pf::check_volume_name(parsed->name());
    } else {
        PF_ASSERT(!parsed.error().message.empty());
    }
    if (const auto parsed = parse_volume_change(body)) {
        PF_ASSERT(parsed->name.has_value() != parsed->size_bytes.has_value());
    }
    if (const auto parsed = parse_new_tray(body)) PF_ASSERT(parsed->request.cluster_uuid().empty());
    const std::string text(body);
    [[maybe_unused]] const auto flag = parse_flag("force", &text);
    [[maybe_unused]] const auto number = parse_number("limit", text);
    return 0;
}
