// A reference-counted pointer for copy-on-write structures of the simulator. Counts are plain
// integers: everything that shares objects stays on one thread.
#pragma once

#include <cstdint>
#include <utility>

namespace pf::runtime::sim {

// T has a member `uint32_t references`, zero when made.
template <class T>
class Counted {
  public:
    Counted() = default;
    explicit Counted(T* object) : object_(object) { take(); }
    Counted(const Counted& other) : object_(other.object_) { take(); }
    Counted(Counted&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
    Counted& operator=(Counted other) noexcept {
        std::swap(object_, other.object_);
        return *this;
    }
    ~Counted() {
        if (object_ != nullptr && --object_->references == 0) delete object_;
    }

    [[nodiscard]] const T* get() const { return object_; }
    explicit operator bool() const { return object_ != nullptr; }
    bool operator==(const Counted& other) const { return object_ == other.object_; }

    // The object for writing: made when missing, copied when someone else holds it too.
    [[nodiscard]] T& own() {
        if (object_ == nullptr) {
            *this = Counted(new T);
        } else if (object_->references > 1) {
            *this = Counted(new T(*object_));
        }
        return *object_;
    }

  private:
    void take() {
        if (object_ != nullptr) ++object_->references;
    }
    T* object_ = nullptr;
};

}  // namespace pf::runtime::sim
