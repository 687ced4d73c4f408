#include "base/metrics.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace pf {

void LatencyHistogram::merge(const LatencyHistogram& other) {
    for (size_t i = 0; i < bucket_count; ++i) buckets_[i] += other.buckets_[i];
    count_ += other.count_;
    sum_ns_ += other.sum_ns_;
    max_ns_ = std::max(max_ns_, other.max_ns_);
}

uint64_t LatencyHistogram::upper_ns(size_t index) {
    if (index < sub_count) return (index + 1) << unit_shift;
    const unsigned octave = static_cast<unsigned>(index / sub_count) - 1;
    const uint64_t sub = index % sub_count;
    return ((sub_count + sub + 1) << octave) << unit_shift;
}

uint64_t LatencyHistogram::percentile_ns(double fraction) const {
    if (count_ == 0) return 0;
    const auto wanted = static_cast<uint64_t>(fraction * static_cast<double>(count_));
    uint64_t seen = 0;
    for (size_t i = 0; i < bucket_count; ++i) {
        seen += buckets_[i];
        if (seen > wanted) return std::min(upper_ns(i), max_ns_);
    }
    return max_ns_;
}

MetricsPage::Family& MetricsPage::family(std::string_view name, std::string_view help, Kind kind) {
    for (auto& family : families_) {
        if (family.name != name) continue;
        PF_ASSERT(family.kind == kind);
        return family;
    }
    return families_.emplace_back(Family{std::string(name), std::string(help), kind, {}});
}

void MetricsPage::counter(std::string_view name, std::string_view help, MetricLabels labels,
                          double value) {
    family(name, help, Kind::counter).samples.push_back({std::move(labels), value, {}});
}

void MetricsPage::gauge(std::string_view name, std::string_view help, MetricLabels labels,
                        double value) {
    family(name, help, Kind::gauge).samples.push_back({std::move(labels), value, {}});
}

void MetricsPage::histogram(std::string_view name, std::string_view help, MetricLabels labels,
                            const LatencyHistogram& value) {
    family(name, help, Kind::histogram).samples.push_back({std::move(labels), 0, value});
}

}  // namespace pf
