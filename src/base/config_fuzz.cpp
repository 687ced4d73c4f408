// Configuration text from anywhere: parsed or refused with a reason, never a crash.
#include "base/assert.hpp"
#include "base/config.hpp"

namespace {
constexpr pf::ConfigKey keys[] = {
    {"a.text", pf::ConfigType::text, "x", ""},       {"a.list", pf::ConfigType::list, "", ""},
    {"a.flag", pf::ConfigType::boolean, "true", ""}, {"a.number", pf::ConfigType::integer, "1", ""},
    {"b.size", pf::ConfigType::size, "1M", ""},      {"b.time", pf::ConfigType::duration, "1s", ""},
};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    pf::Config config(keys);
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto loaded = config.load_text(text, "fuzz");
    if (!loaded) PF_ASSERT(!loaded.error().message.empty());
    [[maybe_unused]] const uint64_t bytes =
        config.size_bytes("b.size") + config.duration_ns("b.time");
    [[maybe_unused]] const auto set = config.set("a.number", text);
    return 0;
}
