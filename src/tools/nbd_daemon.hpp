// The life of an NBD server process: a reactor, a volume, a listener, the ready line, and a clean
// end on SIGTERM or SIGINT. Where the volume comes from is the caller's: the cluster, or a fake.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "client/volume.hpp"
#include "runtime/task.hpp"

namespace pf::tools {

struct NbdArguments {
    std::string name;
    std::string socket;  // a path, or empty
    std::string listen;  // HOST:PORT, or empty
    bool read_only = false;
    bool insecure_listen = false;
};

// Opens the volume on the reactor that calls it, and closes what it opened.
class VolumeSource {
  public:
    virtual ~VolumeSource() = default;
    [[nodiscard]] virtual runtime::Task<Result<client::Volume*>> open(std::string name,
                                                                      bool read_only) = 0;
    [[nodiscard]] virtual runtime::Task<void> close() = 0;
};

// Blocks until the signal to stop. Returns the exit code; errors were printed, one line each.
// `make_source` is called on the reactor's thread.
[[nodiscard]] int run_nbd(const NbdArguments& arguments,
                          const std::function<std::unique_ptr<VolumeSource>()>& make_source);

}  // namespace pf::tools
