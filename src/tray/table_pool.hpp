// Memory for tables and bitmap pages: slabs that are never given back, with a free list, so that
// cloning a table on the write path does not reach the general allocator once the map has its size.
#pragma once

#include <memory>
#include <vector>

#include "tray/format.hpp"

namespace pf::tray {

template <class T>
class SlabPool {
  public:
    [[nodiscard]] T* take() {
        if (free_.empty()) grow();
        T* item = free_.back();
        free_.pop_back();
        return item;
    }
    void give_back(T* item) { free_.push_back(item); }
    [[nodiscard]] size_t in_use() const { return slabs_.size() * items_per_slab - free_.size(); }

  private:
    static constexpr size_t items_per_slab = 64;
    void grow() {
        slabs_.push_back(std::make_unique_for_overwrite<T[]>(items_per_slab));
        free_.reserve(slabs_.size() * items_per_slab);
        for (size_t i = items_per_slab; i > 0; --i) free_.push_back(&slabs_.back()[i - 1]);
    }

    std::vector<std::unique_ptr<T[]>> slabs_;
    std::vector<T*> free_;
};

using TablePool = SlabPool<Table>;

}  // namespace pf::tray
