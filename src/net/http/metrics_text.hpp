// Prometheus text exposition of a MetricsPage.
#pragma once

#include <string>

#include "base/metrics.hpp"

namespace pf::net {

inline constexpr const char* metrics_content_type = "text/plain; version=0.0.4; charset=utf-8";

[[nodiscard]] std::string metrics_text(const MetricsPage& page);

}  // namespace pf::net
