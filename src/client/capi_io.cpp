// The I/O of open volumes.
#include <algorithm>
#include <cerrno>

#include "base/units.hpp"
#include "client/capi.hpp"

namespace {

using namespace pf;
using client::Io;
using client::IoKind;
using client::capi::explain;
using client::capi::negative_errno;
using client::capi::SlotLock;
using runtime::Task;

constexpr int max_vectors = 1024;

// --- slots ---

ApiIo* take_slot(pfbd_volume& volume) {
    const SlotLock lock(volume);
    ApiIo* slot = volume.free_ios;
    if (slot == nullptr) return nullptr;
    volume.free_ios = slot->next_free;
    ++volume.taken_ios;
    return slot;
}

void give_slot(ApiIo& slot) {
    const SlotLock lock(*slot.volume);
    slot.next_free = slot.volume->free_ios;
    slot.volume->free_ios = &slot;
    --slot.volume->taken_ios;
}

void call_back(ApiIo& slot, int status) {
    const pfbd_callback callback = slot.callback;
    void* argument = slot.argument;
    ++slot.volume->context->callbacks;
    // First, so that the callback can start the next I/O.
    give_slot(slot);
    callback(argument, status);
}

void on_complete(Io& io) {
    call_back(static_cast<ApiIo&>(io), negative_errno(io.result));
}

Task<void> ask_states(ApiIo& slot) {
    const auto found =
        co_await slot.volume->core->block_states(slot.offset, slot.length, *slot.extent_count);
    if (!found) {
        call_back(slot, negative_errno(found.error().code));
        co_return;
    }
    *slot.extent_count = static_cast<uint32_t>(found->size());
    for (size_t i = 0; i < found->size(); ++i)
        slot.extents[i] = {(*found)[i].length_bytes, (*found)[i].state, 0};
    call_back(slot, 0);
}

// On the reactor.
void on_posted(runtime::PostedCall& call) {
    auto& slot = static_cast<ApiIo&>(call);
    if (slot.kind == IoKind::block_states) {
        runtime::Reactor::current().spawn(ask_states(slot));
        return;
    }
    const Status submitted = slot.volume->core->submit(slot);
    if (!submitted) call_back(slot, negative_errno(submitted.error().code));
}

// --- submitting ---

// What can be refused at once, so that programs see it where they made the call.
Errc check(pfbd_volume& volume, IoKind kind, uint64_t length, uint64_t offset) {
    const SlotLock lock(volume);
    const client::VolumeInfo& info = volume.info;
    if (volume.closing) return Errc::cancelled;
    if (kind == IoKind::flush) return Errc::ok;
    if (kind != IoKind::read && info.read_only) return Errc::read_only;
    if (length == 0 || length % sector_bytes != 0 || offset % sector_bytes != 0)
        return Errc::invalid_argument;
    if (offset > info.size_bytes || length > info.size_bytes - offset) return Errc::out_of_range;
    return Errc::ok;
}

const char* text_of_refusal(Errc code) {
    switch (code) {
        case Errc::cancelled:
            return "the volume is being closed";
        case Errc::read_only:
            return "the volume was opened read-only";
        case Errc::out_of_range:
            return "the range ends beyond the volume";
        default:
            return "offset and length have to be multiples of 512, and the length over 0";
    }
}

int submit(ApiIo& slot) {
    pfbd_context& context = *slot.volume->context;
    if (context.own_thread()) {
        context.reactor().post(slot);
        return 0;
    }
    const runtime::Reactor::Enter enter(context.reactor());
    const Status submitted = slot.volume->core->submit(slot);
    if (!submitted) {
        give_slot(slot);
        return negative_errno(submitted.error().code);
    }
    context.nudge();
    return 0;
}

struct Call {
    IoKind kind;
    uint64_t length;
    uint64_t offset;
    pfbd_callback callback;
    void* argument;
};

ApiIo* prepare(pfbd_volume& volume, const Call& call) {
    ApiIo* slot = take_slot(volume);
    if (slot == nullptr) return nullptr;
    slot->kind = call.kind;
    slot->length = call.length;
    slot->offset = call.offset;
    slot->callback = call.callback;
    slot->argument = call.argument;
    slot->no_hole = false;
    slot->data = {};
    slot->expected = {};
    return slot;
}

int submit_plain(pfbd_volume* volume, const Call& call, const void* memory) {
    const Errc refused = check(*volume, call.kind, call.length, call.offset);
    if (refused != Errc::ok) return negative_errno(refused);
    ApiIo* slot = prepare(*volume, call);
    if (slot == nullptr) return -EAGAIN;
    slot->vectors_inline[0] = {const_cast<void*>(memory), call.length};
    slot->data = {slot->vectors_inline, 1};
    return submit(*slot);
}

int submit_vectors(pfbd_volume* volume, Call call, const iovec* vectors, int count) {
    if (vectors == nullptr || count <= 0 || count > max_vectors) return -EINVAL;
    for (int i = 0; i < count; ++i) {
        if (__builtin_add_overflow(call.length, vectors[i].iov_len, &call.length)) return -EINVAL;
    }
    const Errc refused = check(*volume, call.kind, call.length, call.offset);
    if (refused != Errc::ok) return negative_errno(refused);
    ApiIo* slot = prepare(*volume, call);
    if (slot == nullptr) return -EAGAIN;
    const auto entries = static_cast<size_t>(count);
    iovec* to = slot->vectors_inline;
    if (entries > ApiIo::inline_vectors) {
        slot->vectors_memory.resize(entries);
        to = slot->vectors_memory.data();
    }
    std::copy_n(vectors, entries, to);
    slot->data = {to, entries};
    return submit(*slot);
}

// --- tasks on the reactor ---

Task<Status> run_io(client::Volume* volume, IoKind kind, iovec memory, uint64_t offset) {
    Io io;
    io.kind = kind;
    io.offset = offset;
    io.length = memory.iov_len;
    io.data = {&memory, 1};
    co_return co_await volume->run(io);
}

int run_sync(pfbd_volume* volume, IoKind kind, const void* memory, uint64_t length,
             uint64_t offset) {
    if (const int refused = volume->context->refuse_waiting(); refused != 0) return refused;
    if (const Errc code = check(*volume, kind, length, offset); code != Errc::ok)
        return explain(code, text_of_refusal(code));
    client::Volume* core = volume->core.get();
    const iovec vector{const_cast<void*>(memory), length};
    const Status done = volume->context->wait_for(
        [core, kind, vector, offset] { return run_io(core, kind, vector, offset); });
    return done ? 0 : explain(done.error());
}

}  // namespace

namespace pf::client::capi {

void make_slots(pfbd_volume& volume) {
    for (uint32_t i = 0; i < volume.context->depth; ++i) {
        ApiIo& slot = volume.ios.emplace_back();
        slot.volume = &volume;
        slot.complete = &on_complete;
        slot.run = &on_posted;
        slot.next_free = volume.free_ios;
        volume.free_ios = &slot;
    }
}

bool has_taken_slots(pfbd_volume& volume) {
    const SlotLock lock(volume);
    return volume.taken_ios > 0;
}

}  // namespace pf::client::capi

extern "C" {

int pfbd_read(pfbd_volume* volume, void* to, uint64_t length, uint64_t offset,
              pfbd_callback callback, void* argument) {
    return submit_plain(volume, {IoKind::read, length, offset, callback, argument}, to);
}

int pfbd_write(pfbd_volume* volume, const void* from, uint64_t length, uint64_t offset,
               pfbd_callback callback, void* argument) {
    return submit_plain(volume, {IoKind::write, length, offset, callback, argument}, from);
}

int pfbd_readv(pfbd_volume* volume, const iovec* to, int count, uint64_t offset,
               pfbd_callback callback, void* argument) {
    return submit_vectors(volume, {IoKind::read, 0, offset, callback, argument}, to, count);
}

int pfbd_writev(pfbd_volume* volume, const iovec* from, int count, uint64_t offset,
                pfbd_callback callback, void* argument) {
    return submit_vectors(volume, {IoKind::write, 0, offset, callback, argument}, from, count);
}

int pfbd_flush(pfbd_volume* volume, pfbd_callback callback, void* argument) {
    const Errc refused = check(*volume, IoKind::flush, 0, 0);
    if (refused != Errc::ok) return negative_errno(refused);
    ApiIo* slot = prepare(*volume, {IoKind::flush, 0, 0, callback, argument});
    return slot == nullptr ? -EAGAIN : submit(*slot);
}

int pfbd_discard(pfbd_volume* volume, uint64_t length, uint64_t offset, pfbd_callback callback,
                 void* argument) {
    const Errc refused = check(*volume, IoKind::discard, length, offset);
    if (refused != Errc::ok) return negative_errno(refused);
    ApiIo* slot = prepare(*volume, {IoKind::discard, length, offset, callback, argument});
    return slot == nullptr ? -EAGAIN : submit(*slot);
}

int pfbd_write_zeroes(pfbd_volume* volume, uint64_t length, uint64_t offset, uint32_t flags,
                      pfbd_callback callback, void* argument) {
    if ((flags & ~uint32_t{PFBD_WRITE_NO_HOLE}) != 0) return -EINVAL;
    const Errc refused = check(*volume, IoKind::write_zeroes, length, offset);
    if (refused != Errc::ok) return negative_errno(refused);
    ApiIo* slot = prepare(*volume, {IoKind::write_zeroes, length, offset, callback, argument});
    if (slot == nullptr) return -EAGAIN;
    slot->no_hole = (flags & PFBD_WRITE_NO_HOLE) != 0;
    return submit(*slot);
}

int pfbd_compare_and_write(pfbd_volume* volume, const void* expected, const void* from,
                           uint64_t length, uint64_t offset, pfbd_callback callback,
                           void* argument) {
    const Errc refused = check(*volume, IoKind::compare_and_write, length, offset);
    if (refused != Errc::ok) return negative_errno(refused);
    constexpr uint64_t max_compare_bytes = 64u << 10;
    if (length > max_compare_bytes || offset % chunk_bytes + length > chunk_bytes) return -EINVAL;
    ApiIo* slot = prepare(*volume, {IoKind::compare_and_write, length, offset, callback, argument});
    if (slot == nullptr) return -EAGAIN;
    slot->vectors_inline[0] = {const_cast<void*>(from), length};
    slot->vectors_inline[1] = {const_cast<void*>(expected), length};
    slot->data = {slot->vectors_inline, 1};
    slot->expected = {slot->vectors_inline + 1, 1};
    return submit(*slot);
}

int pfbd_block_states(pfbd_volume* volume, uint64_t length, uint64_t offset, pfbd_extent* extents,
                      uint32_t* count, pfbd_callback callback, void* argument) {
    if (extents == nullptr || count == nullptr || *count == 0) return -EINVAL;
    const Errc refused = check(*volume, IoKind::read, length, offset);
    if (refused != Errc::ok) return negative_errno(refused);
    ApiIo* slot = prepare(*volume, {IoKind::block_states, length, offset, callback, argument});
    if (slot == nullptr) return -EAGAIN;
    slot->extents = extents;
    slot->extent_count = count;
    // Posted on either kind of context, so that the callback never comes from inside this call.
    volume->context->reactor().post(*slot);
    return 0;
}

int pfbd_pread(pfbd_volume* volume, void* to, uint64_t length, uint64_t offset) {
    return run_sync(volume, IoKind::read, to, length, offset);
}

int pfbd_pwrite(pfbd_volume* volume, const void* from, uint64_t length, uint64_t offset) {
    return run_sync(volume, IoKind::write, from, length, offset);
}

}  // extern "C"
