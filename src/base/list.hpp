// Intrusive doubly linked list: queues on the I/O path link objects that already exist, so that
// queueing allocates nothing. An element is in at most one list per hook and unlinks itself when
// destroyed.
#pragma once

#include "base/assert.hpp"

namespace pf {

class ListHook {
  public:
    ListHook() = default;
    ListHook(const ListHook&) = delete;
    ListHook& operator=(const ListHook&) = delete;
    ~ListHook() { unlink(); }

    [[nodiscard]] bool linked() const { return next_ != nullptr; }
    void unlink() {
        if (!linked()) return;
        previous_->next_ = next_;
        next_->previous_ = previous_;
        previous_ = next_ = nullptr;
    }

  private:
    template <class T>
    friend class List;
    ListHook* previous_ = nullptr;
    ListHook* next_ = nullptr;
};

// T derives from ListHook.
template <class T>
class List {
  public:
    List() { head_.previous_ = head_.next_ = &head_; }
    List(const List&) = delete;
    List& operator=(const List&) = delete;
    ~List() {
        while (!empty()) pop_front();
        head_.previous_ = head_.next_ = nullptr;
    }

    [[nodiscard]] bool empty() const { return head_.next_ == &head_; }
    [[nodiscard]] T* front() { return empty() ? nullptr : static_cast<T*>(head_.next_); }
    void push_back(T& item) { insert_before(head_, item); }
    void push_front(T& item) { insert_before(*head_.next_, item); }
    T* pop_front() {
        T* item = front();
        if (item != nullptr) static_cast<ListHook*>(item)->unlink();
        return item;
    }
    // The element after `item`, or nullptr at the end.
    [[nodiscard]] T* next(T& item) {
        ListHook* following = static_cast<ListHook&>(item).next_;
        return following == &head_ ? nullptr : static_cast<T*>(following);
    }

  private:
    void insert_before(ListHook& position, T& item) {
        ListHook& hook = item;
        PF_ASSERT(!hook.linked());
        hook.previous_ = position.previous_;
        hook.next_ = &position;
        position.previous_->next_ = &hook;
        position.previous_ = &hook;
    }

    ListHook head_;
};

}  // namespace pf
