// Memory for tables: slabs that are never given back, with a free list, so that cloning a table on
// the write path does not reach the general allocator once the map has its size.
#pragma once

#include <memory>
#include <vector>

#include "tray/format.hpp"

namespace pf::tray {

class TablePool {
  public:
    [[nodiscard]] Table* take() {
        if (free_.empty()) grow();
        Table* table = free_.back();
        free_.pop_back();
        return table;
    }
    void give_back(Table* table) { free_.push_back(table); }

  private:
    static constexpr size_t tables_per_slab = 64;
    void grow() {
        slabs_.push_back(std::make_unique_for_overwrite<Table[]>(tables_per_slab));
        free_.reserve(slabs_.size() * tables_per_slab);
        for (size_t i = tables_per_slab; i > 0; --i) free_.push_back(&slabs_.back()[i - 1]);
    }

    std::vector<std::unique_ptr<Table[]>> slabs_;
    std::vector<Table*> free_;
};

}  // namespace pf::tray
