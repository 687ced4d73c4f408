/* pfbd: the client library of PureFlash (C API).
 *
 * A context finds the cluster through its conductor and runs the I/O of the volumes opened on it.
 * It has either a thread of its own (callbacks come from that thread; every function may be called
 * from any thread), or runs on the caller's thread (PFBD_CALLER_THREAD: every function of the
 * context and its volumes is called from that one thread, and callbacks come from inside pfbd_poll
 * and the functions that wait, which poll: no thread hop per I/O).
 *
 * Durability: a write that was completed with 0 is on stable media of every in-sync replica; flush
 * has nothing left to do. Atomicity: a write of up to 1 MiB inside one aligned 2 MiB range is all
 * or nothing after any crash. A write completes with an error only if it is applied or never will
 * be.
 *
 * Offsets and lengths are bytes, multiples of 512. Memory stays valid, and for writes unchanged,
 * until the callback. Functions return 0 or a negative errno; pfbd_error_text() of the same thread
 * explains the last one. Statuses given to callbacks are 0 or a negative errno: -EIO medium failed,
 * -EILSEQ corrupt (the data does not match its checksum and is not returned), -ENOSPC full,
 * -EROFS read-only, -ETIMEDOUT the deadline passed (a write was then never applied and never will
 * be; of one that is cut, over 1 MiB or across a 2 MiB border, this holds for each part by itself:
 * some may have been applied before), -ESTALE fenced by another writer (the volume handle is
 * finished; of a write whose store did not answer for 30 s after that the outcome is not known),
 * -ECANCELED miscompare of compare-and-write, -ESHUTDOWN the handle was closed before the outcome
 * was known.
 *
 * From inside a callback the asynchronous functions and pfbd_get_info may be called. The ones that
 * wait for the cluster, and pfbd_poll, return -EDEADLK there and do nothing; pfbd_context_destroy,
 * which has nothing to return, does nothing either.
 */
#ifndef PFBD_H
#define PFBD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PFBD_VERSION_MAJOR 0
#define PFBD_VERSION_MINOR 1
#define PFBD_API __attribute__((visibility("default")))

typedef struct pfbd_context pfbd_context;
typedef struct pfbd_volume pfbd_volume;
typedef void (*pfbd_callback)(void* argument, int status);

enum { PFBD_CALLER_THREAD = 1 }; /* pfbd_options.flags */
enum {
    PFBD_READ_ONLY = 1,
    PFBD_EXCLUSIVE = 2
}; /* pfbd_open flags; exclusive fences earlier writers */
/* pfbd_write_zeroes flags: the range is zero, not a hole, to pfbd_block_states. */
enum { PFBD_WRITE_NO_HOLE = 1 };

typedef struct pfbd_options {
    size_t struct_bytes;   /* sizeof(pfbd_options): lets the struct grow */
    const char* conductor; /* HOST:PORT of the conductor's HTTP port; NULL: PF_CONDUCTOR, then
                              127.0.0.1:49180 */
    uint32_t flags;
    uint32_t depth;         /* I/Os in flight per volume, 1..1024; 0: 128 */
    uint32_t io_timeout_ms; /* deadline of one I/O; 0: none, I/O waits for the store to come back */
    uint64_t buffer_bytes;  /* library memory, 8 MiB to 64 GiB; 0: 64 MiB */
} pfbd_options;

typedef struct pfbd_info {
    uint64_t size_bytes;
    uint64_t volume_id;
    uint32_t shard_count;
    uint32_t replicas;
    int read_only;
    uint64_t shard_bytes;
} pfbd_info;

typedef struct pfbd_extent { /* of pfbd_block_states */
    uint64_t length_bytes;
    uint32_t state; /* 0 hole, 1 zero, 2 data */
    uint32_t reserved;
} pfbd_extent;

PFBD_API const char* pfbd_version(void);
PFBD_API const char* pfbd_error_text(void);

PFBD_API int pfbd_context_create(const pfbd_options* options, pfbd_context** context);
/* Volumes are closed first. Not from inside a callback: see above. */
PFBD_API void pfbd_context_destroy(pfbd_context* context);

/* Caller-thread contexts. Runs what is ready, waiting up to timeout_us (0: do not wait, -1: until
 * something happens). Returns the number of callbacks made. */
PFBD_API int pfbd_poll(pfbd_context* context, int64_t timeout_us);
/* Readable when pfbd_poll would do something. */
PFBD_API int pfbd_poll_fd(pfbd_context* context);

/* These wait for the cluster; on a caller-thread context they poll inside. */
PFBD_API int pfbd_open(pfbd_context* context, const char* name, uint32_t flags,
                       pfbd_volume** volume);
PFBD_API int pfbd_close(pfbd_volume* volume); /* waits for I/O in flight */
PFBD_API int pfbd_get_info(pfbd_volume* volume, pfbd_info* info);
PFBD_API int pfbd_refresh(
    pfbd_volume* volume); /* asks the conductor for the size again, after a resize */

/* Asynchronous I/O: 0 if accepted (the callback comes once), else a negative errno and no callback:
 * -EINVAL unaligned or empty, -ERANGE beyond the end, -EAGAIN depth reached, -EROFS. */
PFBD_API int pfbd_read(pfbd_volume*, void* to, uint64_t length, uint64_t offset, pfbd_callback,
                       void* argument);
PFBD_API int pfbd_write(pfbd_volume*, const void* from, uint64_t length, uint64_t offset,
                        pfbd_callback, void* argument);
/* The vector array itself is copied; at most 1024 entries. */
PFBD_API int pfbd_readv(pfbd_volume*, const struct iovec*, int count, uint64_t offset,
                        pfbd_callback, void* argument);
PFBD_API int pfbd_writev(pfbd_volume*, const struct iovec*, int count, uint64_t offset,
                         pfbd_callback, void* argument);
PFBD_API int pfbd_flush(pfbd_volume*, pfbd_callback, void* argument);
PFBD_API int pfbd_discard(pfbd_volume*, uint64_t length, uint64_t offset, pfbd_callback,
                          void* argument);
PFBD_API int pfbd_write_zeroes(pfbd_volume*, uint64_t length, uint64_t offset, uint32_t flags,
                               pfbd_callback, void* argument);
/* Writes `from` if the range holds `expected`; up to 64 KiB inside one aligned 2 MiB range. */
PFBD_API int pfbd_compare_and_write(pfbd_volume*, const void* expected, const void* from,
                                    uint64_t length, uint64_t offset, pfbd_callback,
                                    void* argument);
/* Fills up to *count extents from `offset` on and sets *count. `extents` stays valid until the
 * callback. */
PFBD_API int pfbd_block_states(pfbd_volume*, uint64_t length, uint64_t offset, pfbd_extent* extents,
                               uint32_t* count, pfbd_callback, void* argument);

/* Synchronous forms; 0 or a negative errno. */
PFBD_API int pfbd_pread(pfbd_volume*, void* to, uint64_t length, uint64_t offset);
PFBD_API int pfbd_pwrite(pfbd_volume*, const void* from, uint64_t length, uint64_t offset);

/* Administration. */
PFBD_API int pfbd_volume_create(pfbd_context*, const char* name, uint64_t size_bytes,
                                uint32_t replicas);
PFBD_API int pfbd_volume_delete(pfbd_context*, const char* name, int force);
PFBD_API int pfbd_volume_rename(pfbd_context*, const char* name, const char* new_name);
PFBD_API int pfbd_volume_resize(pfbd_context*, const char* name, uint64_t size_bytes);
PFBD_API int pfbd_volume_exists(pfbd_context*, const char* name); /* 1, 0 or a negative errno */
/* Calls `each` for every volume, by name. */
PFBD_API int pfbd_volume_list(pfbd_context*,
                              void (*each)(void* argument, const char* name, uint64_t size_bytes),
                              void* argument);

#ifdef __cplusplus
}
#endif
#endif
