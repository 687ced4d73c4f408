// `pfbd nbd` on a volume in memory: lets the client tests run, and fail, without a cluster.
// Usage: nbd_fake_server NAME SIZE (--socket PATH | --listen HOST:PORT) [--read-only]
#include <fmt/format.h>

#include <cstdio>
#include <string>

#include "attach/fake_volume.hpp"
#include "tools/nbd_daemon.hpp"

using namespace pf;

namespace {

class FakeSource : public tools::VolumeSource {
  public:
    explicit FakeSource(uint64_t size_bytes) : size_bytes_(size_bytes) {}
    runtime::Task<Result<client::Volume*>> open(std::string name, bool read_only) override {
        volume_ = std::make_unique<attach::FakeVolume>(name, size_bytes_, read_only);
        co_return volume_.get();
    }
    runtime::Task<void> close() override {
        volume_.reset();
        co_return;
    }

  private:
    uint64_t size_bytes_;
    std::unique_ptr<attach::FakeVolume> volume_;
};

}  // namespace

int main(int argc, char** argv) {
    tools::NbdArguments arguments;
    uint64_t size_bytes = 0;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const std::string value = i + 1 < argc ? argv[i + 1] : "";
        if (word == "--read-only") {
            arguments.read_only = true;
        } else if (word == "--socket") {
            arguments.socket = value;
            ++i;
        } else if (word == "--listen") {
            arguments.listen = value;
            ++i;
        } else if (arguments.name.empty()) {
            arguments.name = word;
        } else {
            size_bytes = parse_size(word).value_or(0);
        }
    }
    if (size_bytes == 0) {
        (void)fmt::print(stderr, "usage: nbd_fake_server NAME SIZE --socket PATH\n");
        return 2;
    }
    return tools::run_nbd(arguments, [&] { return std::make_unique<FakeSource>(size_bytes); });
}
