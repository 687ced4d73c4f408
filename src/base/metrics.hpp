// Measuring, cheap enough for the I/O path: plain integers owned by one reactor. Who wants to read
// them asks that reactor for a copy. A MetricsPage gathers such copies by name for exposition,
// which is done elsewhere (net/http).
//
// Names: prefix pureflash_, base units (seconds, bytes), _total for counters.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace pf {

// Log-linear buckets: eight to each power of two, so a percentile is at most 12.5 % off. Covers
// 1 us to 137 s; what is outside counts in the first or last bucket.
class LatencyHistogram {
  public:
    static constexpr unsigned unit_shift = 10;  // of nanoseconds: the unit is 1.024 us
    static constexpr unsigned sub_bits = 3;
    static constexpr unsigned sub_count = 1u << sub_bits;
    static constexpr unsigned octaves = 24;
    static constexpr size_t bucket_count = size_t{octaves + 1} * sub_count;

    void record(uint64_t nanos) {
        ++buckets_[index_of(nanos)];
        ++count_;
        sum_ns_ += nanos;
        if (nanos > max_ns_) max_ns_ = nanos;
    }
    void merge(const LatencyHistogram& other);
    void clear() { *this = {}; }

    [[nodiscard]] uint64_t count() const { return count_; }
    [[nodiscard]] uint64_t sum_ns() const { return sum_ns_; }
    [[nodiscard]] uint64_t max_ns() const { return max_ns_; }
    // The upper border of the bucket that holds the fraction (0.5: median), at most max_ns.
    [[nodiscard]] uint64_t percentile_ns(double fraction) const;
    [[nodiscard]] uint64_t bucket(size_t index) const { return buckets_[index]; }
    // Durations below this fall into `index` or lower buckets.
    [[nodiscard]] static uint64_t upper_ns(size_t index);

    [[nodiscard]] static size_t index_of(uint64_t nanos) {
        const uint64_t units = nanos >> unit_shift;
        if (units < sub_count) return units;
        const unsigned octave = static_cast<unsigned>(std::bit_width(units)) - 1 - sub_bits;
        if (octave >= octaves) return bucket_count - 1;
        return size_t{octave + 1} * sub_count + ((units >> octave) & (sub_count - 1));
    }

  private:
    std::array<uint64_t, bucket_count> buckets_{};
    uint64_t count_ = 0;
    uint64_t sum_ns_ = 0;
    uint64_t max_ns_ = 0;
};

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Copies of measurements, ready for exposition. Values of one name are kept together.
class MetricsPage {
  public:
    enum class Kind : uint8_t { counter, gauge, histogram };
    struct Sample {
        MetricLabels labels;
        double value = 0;
        LatencyHistogram histogram;  // of kind histogram
    };
    struct Family {
        std::string name;
        std::string help;
        Kind kind = Kind::gauge;
        std::vector<Sample> samples;
    };

    void counter(std::string_view name, std::string_view help, MetricLabels labels, double value);
    void gauge(std::string_view name, std::string_view help, MetricLabels labels, double value);
    // In seconds when exposed; buckets are folded to powers of two.
    void histogram(std::string_view name, std::string_view help, MetricLabels labels,
                   const LatencyHistogram& value);

    [[nodiscard]] const std::vector<Family>& families() const { return families_; }

  private:
    Family& family(std::string_view name, std::string_view help, Kind kind);
    std::vector<Family> families_;
};

}  // namespace pf
