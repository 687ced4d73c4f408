#include "net/http/metrics_text.hpp"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

namespace pf::net {

namespace {

prometheus::MetricType type_of(MetricsPage::Kind kind) {
    switch (kind) {
        case MetricsPage::Kind::counter:
            return prometheus::MetricType::Counter;
        case MetricsPage::Kind::gauge:
            return prometheus::MetricType::Gauge;
        case MetricsPage::Kind::histogram:
            return prometheus::MetricType::Histogram;
    }
    return prometheus::MetricType::Untyped;
}

// One bucket for each power of two: 25 lines instead of 200.
prometheus::ClientMetric::Histogram fold(const LatencyHistogram& from) {
    constexpr double seconds_per_ns = 1e-9;
    prometheus::ClientMetric::Histogram to;
    to.sample_count = from.count();
    to.sample_sum = static_cast<double>(from.sum_ns()) * seconds_per_ns;
    uint64_t cumulative = 0;
    for (size_t i = 0; i < LatencyHistogram::bucket_count; ++i) {
        cumulative += from.bucket(i);
        // What is beyond the last bucket counts there too: only +Inf may claim it.
        if (i + 1 == LatencyHistogram::bucket_count) break;
        if ((i + 1) % LatencyHistogram::sub_count != 0) continue;
        const double upper = static_cast<double>(LatencyHistogram::upper_ns(i)) * seconds_per_ns;
        to.bucket.push_back({cumulative, upper});
    }
    return to;
}

}  // namespace

std::string metrics_text(const MetricsPage& page) {
    std::vector<prometheus::MetricFamily> families;
    for (const auto& from : page.families()) {
        prometheus::MetricFamily family;
        family.name = from.name;
        family.help = from.help;
        family.type = type_of(from.kind);
        for (const auto& sample : from.samples) {
            prometheus::ClientMetric metric;
            for (const auto& [name, value] : sample.labels) metric.label.push_back({name, value});
            metric.counter.value = sample.value;
            metric.gauge.value = sample.value;
            if (from.kind == MetricsPage::Kind::histogram) metric.histogram = fold(sample.histogram);
            family.metric.push_back(std::move(metric));
        }
        families.push_back(std::move(family));
    }
    return prometheus::TextSerializer().Serialize(families);
}

}  // namespace pf::net
