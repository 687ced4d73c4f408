/* A program as its author would write it: every group of pfbd.h, on the caller's thread, waiting
 * with poll(2). Argument: the name of a volume to make. */
#include <errno.h>
#include <pfbd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, pfbd_error_text()); \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { PENDING = 1, BLOCK = 4096, VOLUME_BYTES = 64 << 20 };

static void done(void* argument, int status) {
    *(int*)argument = status;
}

/* Waits as a program with an event loop does. */
static int finish(pfbd_context* context, int* status) {
    struct pollfd waiting = {pfbd_poll_fd(context), POLLIN, 0};
    CHECK(waiting.fd >= 0);
    while (*status == PENDING) {
        CHECK(poll(&waiting, 1, 10000) == 1);
        CHECK(pfbd_poll(context, 0) >= 0);
    }
    return *status;
}

static void list_one(void* argument, const char* name, uint64_t size_bytes) {
    (void)name;
    *(uint64_t*)argument += size_bytes;
}

static void transfers(pfbd_context* context, pfbd_volume* volume) {
    static char first[BLOCK], second[BLOCK], back[2 * BLOCK];
    struct iovec vectors[2] = {{first, BLOCK}, {second, BLOCK}};
    int status = PENDING;
    memset(first, 'a', BLOCK);
    memset(second, 'b', BLOCK);
    CHECK(pfbd_writev(volume, vectors, 2, 0, done, &status) == 0);
    CHECK(finish(context, &status) == 0);
    status = PENDING;
    CHECK(pfbd_read(volume, back, sizeof(back), 0, done, &status) == 0);
    CHECK(finish(context, &status) == 0);
    CHECK(memcmp(back, first, BLOCK) == 0 && memcmp(back + BLOCK, second, BLOCK) == 0);
    status = PENDING;
    CHECK(pfbd_compare_and_write(volume, first, second, BLOCK, 0, done, &status) == 0);
    CHECK(finish(context, &status) == 0);
    status = PENDING;
    CHECK(pfbd_compare_and_write(volume, first, second, BLOCK, 0, done, &status) == 0);
    CHECK(finish(context, &status) == -ECANCELED);
    status = PENDING;
    CHECK(pfbd_readv(volume, vectors, 2, 0, done, &status) == 0);
    CHECK(finish(context, &status) == 0);
    CHECK(first[0] == 'b' && second[0] == 'b');
    status = PENDING;
    CHECK(pfbd_write_zeroes(volume, BLOCK, BLOCK, 0, done, &status) == 0);
    CHECK(finish(context, &status) == 0);
    status = PENDING;
    CHECK(pfbd_discard(volume, BLOCK, 2 * BLOCK, done, &status) == 0);
    CHECK(finish(context, &status) == 0);
    status = PENDING;
    CHECK(pfbd_flush(volume, done, &status) == 0);
    CHECK(finish(context, &status) == 0);
    pfbd_extent extents[8];
    uint32_t count = 8;
    status = PENDING;
    CHECK(pfbd_block_states(volume, 4 * BLOCK, 0, extents, &count, done, &status) == 0);
    CHECK(finish(context, &status) == 0);
    CHECK(count >= 2 && extents[0].length_bytes == BLOCK && extents[0].state == 2);
    CHECK(pfbd_read(volume, back, 100, 0, done, &status) == -EINVAL);
    CHECK(pfbd_read(volume, back, BLOCK, VOLUME_BYTES, done, &status) == -ERANGE);
}

int main(int argc, char** argv) {
    CHECK(argc == 2);
    const char* name = argv[1];
    pfbd_options options = {.struct_bytes = sizeof(options),
                            .flags = PFBD_CALLER_THREAD,
                            .depth = 32,
                            .io_timeout_ms = 30000};
    pfbd_context* context = NULL;
    pfbd_volume* volume = NULL;
    pfbd_info info;
    uint64_t listed_bytes = 0;
    char block[BLOCK] = {0};
    CHECK(pfbd_context_create(&options, &context) == 0);
    CHECK(pfbd_volume_exists(context, name) == 0);
    CHECK(pfbd_open(context, name, 0, &volume) == -ENOENT);
    CHECK(pfbd_volume_create(context, name, VOLUME_BYTES, 1) == 0);
    CHECK(pfbd_volume_create(context, name, VOLUME_BYTES, 1) == -EEXIST);
    CHECK(pfbd_volume_exists(context, name) == 1);
    CHECK(pfbd_volume_list(context, list_one, &listed_bytes) == 0 && listed_bytes >= VOLUME_BYTES);
    CHECK(pfbd_open(context, name, 0, &volume) == 0);
    CHECK(pfbd_get_info(volume, &info) == 0 && info.size_bytes == VOLUME_BYTES && !info.read_only);
    transfers(context, volume);
    CHECK(pfbd_volume_resize(context, name, 2 * VOLUME_BYTES) == 0);
    CHECK(pfbd_refresh(volume) == 0);
    CHECK(pfbd_get_info(volume, &info) == 0 && info.size_bytes == 2 * VOLUME_BYTES);
    CHECK(pfbd_volume_delete(context, name, 0) == -EBUSY);
    CHECK(pfbd_close(volume) == 0);
    CHECK(pfbd_open(context, name, PFBD_READ_ONLY, &volume) == 0);
    CHECK(pfbd_pread(volume, block, BLOCK, 0) == 0 && block[0] == 'b');
    CHECK(pfbd_pwrite(volume, block, BLOCK, 0) == -EROFS);
    CHECK(pfbd_close(volume) == 0);
    CHECK(pfbd_volume_rename(context, name, "renamed-by-c") == 0);
    CHECK(pfbd_volume_delete(context, "renamed-by-c", 0) == 0);
    pfbd_context_destroy(context);
    printf("ok %s\n", pfbd_version());
    return 0;
}
