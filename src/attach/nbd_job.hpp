// One NBD request in progress, and the pieces of volume I/O it is made of. Both are recycled
// through the lists of their connection, so that a request in steady state allocates nothing.
#pragma once

#include <memory>
#include <vector>

#include "attach/nbd_budget.hpp"
#include "attach/nbd_protocol.hpp"
#include "client/volume.hpp"

namespace pf::attach::nbd {

class Session;
struct Job;

// One I/O on the volume, with the memory of its payload (none for flush, trim and zeroes).
struct Piece : ListHook {
    Job* job = nullptr;
    runtime::Buffer memory;
    iovec vector{};
    client::Io io;
};

struct Job : ListHook {
    Session* session = nullptr;
    Request request;
    List<Piece> pieces;
    uint32_t unfinished = 0;  // pieces under way, and one while they are being submitted
    ErrorNumber error = ErrorNumber::none;
    Account* account = nullptr;
    uint64_t charged_bytes = 0;  // on the account
    ReplyHeader header{};
    uint32_t header_bytes = 0;
    std::vector<std::byte> extents;  // encoded pairs of a block status reply
};

// Objects that are made on demand, up to a limit, and then used again and again.
template <class T>
class Recycler {
  public:
    // nullptr when `limit` objects are in use.
    [[nodiscard]] T* take(size_t limit) {
        if (T* item = free_.pop_front()) return item;
        if (all_.size() >= limit) return nullptr;
        return all_.emplace_back(std::make_unique<T>()).get();
    }
    void give_back(T& item) { free_.push_front(item); }

  private:
    std::vector<std::unique_ptr<T>> all_;  // outlives free_: see the order of members
    List<T> free_;
};

}  // namespace pf::attach::nbd
