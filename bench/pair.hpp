// What the bare pair and the runtime pair share: options, the 64-byte header, figures. Both do the
// same job, a client thread that reads or writes random blocks of a file through a server thread
// over loopback TCP, so that their difference is the cost of the runtime.
#pragma once

#include <sys/resource.h>

#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

namespace pair {

struct Options {
    std::string file;
    uint64_t size = uint64_t{1} << 30;
    uint32_t depth = 128;
    bool write = false;
    uint32_t block = 4096;
    double seconds = 3;
    bool json = false;
};

struct Header {
    uint32_t operation = 0;  // 0 read, 1 write, 2 answer
    uint32_t tag = 0;
    uint64_t offset = 0;
    uint32_t payload = 0;  // bytes that follow
    int32_t result = 0;
    std::array<uint64_t, 5> unused{};
};
static_assert(sizeof(Header) == 64);

[[noreturn]] inline void die(const char* what, int error) {
    std::fprintf(stderr, "%s: %s\n", what, std::strerror(error));
    std::exit(1);
}

inline uint64_t now_ns() {
    return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

// Latencies in buckets about 3 % wide.
class Histogram {
  public:
    void add(uint64_t ns) {
        ++count_;
        sum_ += ns;
        ++buckets_[bucket_of(ns)];
    }
    [[nodiscard]] uint64_t count() const { return count_; }
    [[nodiscard]] double mean_us() const {
        return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_) / 1e3;
    }
    [[nodiscard]] double percentile_us(double share) const {
        const auto wanted = static_cast<uint64_t>(share * static_cast<double>(count_));
        uint64_t seen = 0;
        for (size_t i = 0; i < buckets_.size(); ++i) {
            seen += buckets_[i];
            if (seen > wanted) return static_cast<double>(middle_of(i)) / 1e3;
        }
        return 0;
    }

  private:
    static constexpr unsigned fine_bits = 5;
    static size_t bucket_of(uint64_t ns) {
        if (ns < (1u << fine_bits)) return ns;
        const auto octave = static_cast<unsigned>(std::bit_width(ns)) - fine_bits - 1;
        return ((octave + 1) << fine_bits) + ((ns >> octave) & ((1u << fine_bits) - 1));
    }
    static uint64_t middle_of(size_t bucket) {
        if (bucket < (1u << fine_bits)) return bucket;
        const auto octave = static_cast<unsigned>(bucket >> fine_bits) - 1;
        const uint64_t low = ((bucket & ((1u << fine_bits) - 1)) + (1u << fine_bits)) << octave;
        return low + (uint64_t{1} << octave) / 2;
    }
    std::array<uint64_t, (64 - fine_bits + 1) << fine_bits> buckets_{};
    uint64_t count_ = 0;
    uint64_t sum_ = 0;
};

class CpuWatch {
  public:
    CpuWatch() : process_us_(process_us()), machine_us_(machine_us()), start_(now_ns()) {}
    void stop() {
        process_us_ = process_us() - process_us_;
        machine_us_ = machine_us() - machine_us_;
        seconds_ = static_cast<double>(now_ns() - start_) / 1e9;
    }
    [[nodiscard]] double process() const { return process_us_; }
    [[nodiscard]] double machine() const { return machine_us_; }
    [[nodiscard]] double elapsed_seconds() const { return seconds_; }

  private:
    static double process_us() {
        rusage usage{};
        ::getrusage(RUSAGE_SELF, &usage);
        const auto us = [](const timeval& t) {
            return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec);
        };
        return us(usage.ru_utime) + us(usage.ru_stime);
    }
    static double machine_us() {
        std::FILE* stat = std::fopen("/proc/stat", "r");
        unsigned long long user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0;
        unsigned long long steal = 0;
        if (stat != nullptr) {
            if (std::fscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice,
                            &system, &idle, &wait, &irq, &soft, &steal) != 8) {
                user = nice = system = irq = soft = steal = 0;
            }
            std::fclose(stat);
        }
        return static_cast<double>(user + nice + system + irq + soft + steal) * 1e4;  // 100 Hz
    }
    double process_us_;
    double machine_us_;
    uint64_t start_;
    double seconds_ = 0;
};

inline Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view name = argv[i];
        const auto value = [&]() -> const char* {
            if (i + 1 < argc) return argv[++i];
            std::fprintf(stderr, "%s needs a value\n", argv[i]);
            std::exit(2);
        };
        if (name == "--file") {
            options.file = value();
        } else if (name == "--size") {
            options.size = std::strtoull(value(), nullptr, 10);
        } else if (name == "--depth") {
            options.depth = static_cast<uint32_t>(std::strtoul(value(), nullptr, 10));
        } else if (name == "--rw") {
            options.write = std::string_view(value()) == "write";
        } else if (name == "--bs") {
            options.block = static_cast<uint32_t>(std::strtoul(value(), nullptr, 10));
        } else if (name == "--seconds") {
            options.seconds = std::strtod(value(), nullptr);
        } else if (name == "--json") {
            options.json = true;
        } else {
            std::fprintf(stderr,
                         "usage: %s --file PATH [--size BYTES] [--depth N] [--rw read|write] "
                         "[--bs BYTES] [--seconds S] [--json]\n",
                         argv[0]);
            std::exit(2);
        }
    }
    const bool good = !options.file.empty() && options.depth >= 1 && options.depth <= 1024 &&
                      options.block >= 4096 && options.block % 4096 == 0 &&
                      options.block <= (1u << 20) && options.size >= options.block;
    if (!good) {
        std::fprintf(stderr,
                     "refused: --file is needed, depth 1..1024, bs a multiple of 4096 up to "
                     "1 MiB and not above the size\n");
        std::exit(2);
    }
    return options;
}

inline void report(const Options& options, const Histogram& latency, const CpuWatch& cpu) {
    const auto ios = static_cast<double>(latency.count());
    const double iops = ios / cpu.elapsed_seconds();
    std::printf(options.json
                    ? "{\"ios\": %llu, \"iops\": %.1f, \"mean_us\": %.2f, \"p50_us\": %.2f, "
                      "\"p99_us\": %.2f, \"bytes_per_s\": %.0f, \"process_cpu_us_per_io\": %.3f, "
                      "\"machine_cpu_us_per_io\": %.3f}\n"
                    : "%llu I/Os, %.0f IOPS, mean %.2f us, p50 %.2f us, p99 %.2f us, %.0f B/s, CPU "
                      "per I/O: process %.3f us, machine %.3f us\n",
                static_cast<unsigned long long>(latency.count()), iops, latency.mean_us(),
                latency.percentile_us(0.5), latency.percentile_us(0.99), iops * options.block,
                cpu.process() / ios, cpu.machine() / ios);
}

}  // namespace pair
