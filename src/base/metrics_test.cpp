// Goal: histogram buckets cover every duration without gap, and percentiles stay within a bucket.
#include "base/metrics.hpp"

#include <gtest/gtest.h>

#include "base/rng.hpp"

namespace pf {
namespace {

TEST(LatencyHistogram, BucketsAreContiguous) {
    for (size_t i = 0; i + 1 < LatencyHistogram::bucket_count; ++i) {
        const uint64_t border = LatencyHistogram::upper_ns(i);
        EXPECT_EQ(LatencyHistogram::index_of(border - 1), i);
        EXPECT_EQ(LatencyHistogram::index_of(border), i + 1);
    }
    EXPECT_EQ(LatencyHistogram::index_of(UINT64_MAX), LatencyHistogram::bucket_count - 1);
}

TEST(LatencyHistogram, PercentilesAreClose) {
    LatencyHistogram histogram;
    EXPECT_EQ(histogram.percentile_ns(0.99), 0u);
    Rng rng(1);
    for (int i = 0; i < 100'000; ++i) histogram.record(rng.between(1, 10'000'000));
    EXPECT_NEAR(static_cast<double>(histogram.percentile_ns(0.5)), 5e6, 5e6 * 0.13);
    EXPECT_NEAR(static_cast<double>(histogram.percentile_ns(0.99)), 9.9e6, 9.9e6 * 0.13);
    LatencyHistogram other;
    other.record(1'000'000'000'000);
    histogram.merge(other);
    EXPECT_EQ(histogram.count(), 100'001u);
    EXPECT_EQ(histogram.percentile_ns(1.0), 1'000'000'000'000u);
}

TEST(MetricsPage, KeepsFamiliesTogether) {
    MetricsPage page;
    page.counter("pureflash_a_total", "A.", {{"op", "read"}}, 1);
    page.gauge("pureflash_b_bytes", "B.", {}, 2);
    page.counter("pureflash_a_total", "A.", {{"op", "write"}}, 3);
    ASSERT_EQ(page.families().size(), 2u);
    EXPECT_EQ(page.families()[0].samples.size(), 2u);
}

}  // namespace
}  // namespace pf
