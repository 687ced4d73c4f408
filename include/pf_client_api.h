/* The client API of the earlier PureFlash, source compatible: a program written to it compiles and
 * runs unchanged against libpfbd. New programs use pfbd.h.
 *
 * Configuration is the same INI file (NULL: /etc/pureflash/pf.conf). The conductor is taken from
 * the environment variable PF_CONDUCTOR (HOST:PORT of its HTTP port), else from the file:
 *
 *     [conductor]
 *     address = HOST:PORT
 *     [client]
 *     io_depth = 120      ; I/Os in flight
 *     io_timeout = 30     ; seconds, deadline of one I/O
 *
 * Keys that are not known are ignored, so that existing files keep working.
 *
 * Each open volume has a thread of its own; callbacks come from it. Functions that return int give
 * 0 or a negative errno; functions that return a pointer give NULL and set errno.
 */
#ifndef PF_CLIENT_API_H
#define PF_CLIENT_API_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "pfbd.h"

#define S5_LIB_VER 0x00010000
#define PF_MAX_NAME_LEN 128

#ifdef __cplusplus
extern "C" {
#endif

struct PfClientVolume;

struct PfClientVolumeInfo {
    char status[64]; /* "OK" */
    char volume_name[PF_MAX_NAME_LEN];
    char snap_name[PF_MAX_NAME_LEN];
    uint64_t volume_size;
    uint64_t volume_id;
    int shard_count;
    int rep_count;
    int meta_ver;
    int snap_seq;
};

typedef void (*ulp_io_handler)(void* ulp_arg, int32_t comp_status);

/* Opens for I/O. lib_ver is S5_LIB_VER. Snapshots cannot be opened yet: a snap_name that is neither
 * NULL nor empty is refused with ENOTSUP. */
PFBD_API struct PfClientVolume* pf_open_volume(const char* volume_name, const char* cfg_filename,
                                               const char* snap_name, int lib_ver);
/* Knows the volume but does no I/O. lib_ver is not checked. */
PFBD_API struct PfClientVolume* pf_half_open_volume(const char* volume_name,
                                                    const char* cfg_filename, const char* snap_name,
                                                    int lib_ver);
PFBD_API int pf_query_volume_info(const char* volume_name, const char* cfg_filename,
                                  const char* snap_name, int lib_ver,
                                  struct PfClientVolumeInfo* volume);
PFBD_API uint64_t pf_get_volume_size(struct PfClientVolume* volume);
/* Waits for I/O in flight. Inside a callback it does nothing: close from elsewhere. */
PFBD_API void pf_close_volume(struct PfClientVolume* volume);
PFBD_API const char* show_ver(void);

/* Asynchronous: 0 if accepted (the callback comes once), -EINVAL not aligned to 512, -EAGAIN
 * io_depth reached. */
PFBD_API int pf_io_submit(struct PfClientVolume* volume, void* buf, size_t length, off_t offset,
                          ulp_io_handler callback, void* cbk_arg, int is_write);
/* `length` is the sum of the vectors, at most 128 KiB as before. */
PFBD_API int pf_iov_submit(struct PfClientVolume* volume, const struct iovec* iov,
                           unsigned int iov_cnt, size_t length, off_t offset,
                           ulp_io_handler callback, void* cbk_arg, int is_write);
#define pf_io_submit_read(volume, buf, length, offset, callback, arg) \
    pf_io_submit(volume, buf, length, offset, callback, arg, 0)
#define pf_io_submit_write(volume, buf, length, offset, callback, arg) \
    pf_io_submit(volume, buf, length, offset, callback, arg, 1)

/* There are no tenants any more: any name that a volume could have is accepted and nothing is made.
 */
PFBD_API int pf_create_tenant(const char* tenant_name, const char* cfg_filename);
PFBD_API int pf_rename_volume(const char* volume_name, const char* new_name,
                              const char* cfg_filename);
PFBD_API int pf_delete_volume(const char* volume_name, const char* cfg_filename);

#ifdef __cplusplus
}
#endif
#endif
