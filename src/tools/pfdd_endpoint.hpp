// One side of a copy: a file, a stream or a volume.
//
// Thread rule: one thread. A volume's I/O completes inside Cluster::poll.
#pragma once

#include <pfbd.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.hpp"
#include "base/error.hpp"

namespace pf::tools {

// A caller-thread context: no thread hop per I/O.
class Cluster {
  public:
    Cluster() = default;
    Cluster(const Cluster&) = delete;
    Cluster& operator=(const Cluster&) = delete;
    ~Cluster();
    [[nodiscard]] Status connect(const std::string& conductor, uint32_t depth);
    [[nodiscard]] bool connected() const { return context_ != nullptr; }
    void poll(int64_t timeout_us);
    [[nodiscard]] pfbd_context* context() { return context_; }

  private:
    pfbd_context* context_ = nullptr;
};

struct FileRun {
    uint64_t bytes = 0;
    bool hole = false;
};

class Endpoint {
  public:
    enum class Use : uint8_t { input, output };

    Endpoint() = default;
    Endpoint(const Endpoint&) = delete;
    Endpoint& operator=(const Endpoint&) = delete;
    ~Endpoint();

    [[nodiscard]] Status open(const std::string& operand, Use use, Cluster& cluster);

    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] bool is_volume() const { return volume_ != nullptr; }
    [[nodiscard]] pfbd_volume* volume() { return volume_; }
    // Of a volume, a block device or a regular file that says more than 0. Not of a standard
    // stream, which may begin in the middle.
    [[nodiscard]] std::optional<uint64_t> size() const { return size_; }
    [[nodiscard]] bool seekable() const { return seekable_; }
    // Truncating leaves nothing behind; devices and streams ignore it.
    [[nodiscard]] bool truncatable() const { return regular_ && seekable_; }

    // Once this gives true, a file that keeps us waiting is not waited for: a read gives what it
    // has, a write fails. Needs a signal that interrupts the call.
    void stop_when(std::function<bool()> stop) { stop_ = std::move(stop); }
    // Called while a stream keeps a read waiting, so that what is under way goes on. False: nothing
    // is, and it is enough to be called once a second.
    void meanwhile(std::function<bool()> others) { others_ = std::move(others); }

    // Files only. read fills `to` unless the input ends.
    [[nodiscard]] Result<size_t> read(MutableBytes to, uint64_t offset);
    [[nodiscard]] Status write(Bytes from, uint64_t offset);
    // The hole or the data that begins at `offset`.
    [[nodiscard]] Result<FileRun> file_run(uint64_t offset);
    // The same bytes, whatever they are called.
    [[nodiscard]] bool same_as(const Endpoint& other) const;
    [[nodiscard]] Status truncate(uint64_t size);
    [[nodiscard]] Status sync();
    // Some filesystems say only now that something was not written. A standard stream stays open.
    [[nodiscard]] Status close();
    // Reads and throws away the beginning of a stream.
    [[nodiscard]] Status skip(uint64_t bytes);

  private:
    [[nodiscard]] bool wait_for_input() const;

    std::function<bool()> stop_ = [] { return false; };
    std::function<bool()> others_ = [] { return false; };
    std::string name_;
    int fd_ = -1;
    bool own_fd_ = false;
    bool seekable_ = false;
    bool regular_ = false;
    std::optional<uint64_t> size_;
    pfbd_volume* volume_ = nullptr;
};

}  // namespace pf::tools
