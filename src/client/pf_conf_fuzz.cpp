// An INI file from anywhere: what is taken from it stays within its limits.
#include "base/assert.hpp"
#include "client/pf_conf.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using pf::client::PfConf;
    const PfConf conf = pf::client::parse_pf_conf({reinterpret_cast<const char*>(data), size});
    PF_ASSERT(conf.depth >= 1 && conf.depth <= PfConf::max_depth);
    PF_ASSERT(conf.timeout_s >= 1 && conf.timeout_s <= PfConf::max_timeout_s);
    PF_ASSERT(conf.conductor.size() <= size && conf.conductor.find('\n') == std::string::npos);
    return 0;
}
