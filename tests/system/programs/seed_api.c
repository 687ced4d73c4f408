/* A program written to the earlier client API (facts: every function, macro and struct member of
 * it). Arguments: an existing volume, another one to be renamed and deleted, and a pf.conf or "-".
 */
#include <errno.h>
#include <pf_client_api.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            fprintf(stderr, "%s:%d: %s (errno %d: %s)\n", __FILE__, __LINE__, #condition, errno, \
                    strerror(errno));                                                            \
            exit(1);                                                                             \
        }                                                                                        \
    } while (0)

struct waiting {
    sem_t ended;
    int32_t status;
};

static void on_end(void* ulp_arg, int32_t comp_status) {
    struct waiting* waiting = ulp_arg;
    waiting->status = comp_status;
    sem_post(&waiting->ended);
}

static void wait_good(struct waiting* waiting) {
    CHECK(sem_wait(&waiting->ended) == 0);
    CHECK(waiting->status == 0);
}

static void transfers(struct PfClientVolume* volume) {
    static char out[8192], in[8192];
    struct waiting waiting;
    struct iovec vectors[2] = {{in, 4096}, {in + 4096, 4096}};
    CHECK(sem_init(&waiting.ended, 0, 0) == 0);
    memset(out, 'p', sizeof(out));
    CHECK(pf_io_submit(volume, out, sizeof(out), 0, on_end, &waiting, 1) == 0);
    wait_good(&waiting);
    CHECK(pf_io_submit(volume, in, sizeof(in), 0, on_end, &waiting, 0) == 0);
    wait_good(&waiting);
    CHECK(memcmp(in, out, sizeof(in)) == 0);
    memset(out, 'q', sizeof(out));
    CHECK(pf_io_submit_write(volume, out, sizeof(out), 8192, on_end, &waiting) == 0);
    wait_good(&waiting);
    CHECK(pf_io_submit_read(volume, in, sizeof(in), 8192, on_end, &waiting) == 0);
    wait_good(&waiting);
    CHECK(memcmp(in, out, sizeof(in)) == 0);
    CHECK(pf_iov_submit(volume, vectors, 2, sizeof(in), 0, on_end, &waiting, 0) == 0);
    wait_good(&waiting);
    CHECK(in[0] == 'p' && in[8191] == 'p');
    CHECK(pf_iov_submit(volume, vectors, 2, sizeof(in), 16384, on_end, &waiting, 1) == 0);
    wait_good(&waiting);
    CHECK(pf_io_submit(volume, in, 100, 0, on_end, &waiting, 0) == -EINVAL);
    CHECK(pf_io_submit(volume, in, 512, 17, on_end, &waiting, 0) == -EINVAL);
    CHECK(pf_iov_submit(volume, vectors, 2, 1 << 20, 0, on_end, &waiting, 0) == -EINVAL);
}

int main(int argc, char** argv) {
    CHECK(argc == 4);
    const char* name = argv[1];
    const char* file = strcmp(argv[3], "-") == 0 ? NULL : argv[3];
    struct PfClientVolumeInfo info;
    struct PfClientVolume* volume = pf_open_volume(name, file, NULL, S5_LIB_VER);
    CHECK(volume != NULL);
    const uint64_t size_bytes = pf_get_volume_size(volume);
    CHECK(size_bytes == 64 << 20);
    transfers(volume);
    pf_close_volume(volume);
    volume = pf_half_open_volume(name, file, "", S5_LIB_VER);
    CHECK(volume != NULL && pf_get_volume_size(volume) == size_bytes);
    pf_close_volume(volume);
    CHECK(pf_query_volume_info(name, file, NULL, S5_LIB_VER, &info) == 0);
    CHECK(strcmp(info.status, "OK") == 0 && strcmp(info.volume_name, name) == 0);
    CHECK(info.snap_name[0] == '\0' && info.volume_size == size_bytes && info.volume_id != 0);
    CHECK(info.shard_count == 1 && info.rep_count == 1 && info.meta_ver >= 0 && info.snap_seq >= 0);
    CHECK(pf_open_volume(name, file, NULL, S5_LIB_VER + 1) == NULL && errno == EINVAL);
    CHECK(pf_open_volume("missing", file, NULL, S5_LIB_VER) == NULL && errno == ENOENT);
    CHECK(pf_open_volume(name, file, "snapshot", S5_LIB_VER) == NULL && errno == ENOTSUP);
    CHECK(pf_create_tenant("tenant", file) == 0);
    CHECK(pf_rename_volume(argv[2], "renamed-by-seed", file) == 0);
    CHECK(pf_delete_volume("renamed-by-seed", file) == 0);
    CHECK(pf_delete_volume("renamed-by-seed", file) == -ENOENT);
    printf("ok %s\n", show_ver());
    return 0;
}
