/* SPDX-License-Identifier: GPL-2.0-only
 *
 * fio engine on libpfbd's C API. This file alone is GPL-2.0-only, because it is built against fio's
 * headers; the library it calls is not.
 *
 * Every fio thread or process has a context of its own, driven from that thread (no hop per I/O).
 * Submitting only queues: what fio queued since the last wait leaves in one go when it waits.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fio.h"
#include "optgroup.h"

#include "pfbd.h"

struct pfbd_engine_options {
    void* pad; /* fio keeps its thread here */
    char* volume;
    char* conductor;
    unsigned int io_timeout_ms;
};

static struct fio_option options[] = {
    {
        .name = "volume",
        .lname = "PureFlash volume",
        .type = FIO_OPT_STR_STORE,
        .off1 = offsetof(struct pfbd_engine_options, volume),
        .help = "Name of the volume",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_RBD,
    },
    {
        .name = "conductor",
        .lname = "PureFlash conductor",
        .type = FIO_OPT_STR_STORE,
        .off1 = offsetof(struct pfbd_engine_options, conductor),
        .help = "HOST:PORT of the conductor (default: PF_CONDUCTOR, then 127.0.0.1:49180)",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_RBD,
    },
    {
        .name = "pfbd_timeout_ms",
        .lname = "PureFlash I/O timeout",
        .type = FIO_OPT_INT,
        .off1 = offsetof(struct pfbd_engine_options, io_timeout_ms),
        .help = "Deadline of one I/O in milliseconds; 0: wait for the store to come back",
        .def = "0",
        .category = FIO_OPT_C_ENGINE,
        .group = FIO_OPT_G_RBD,
    },
    {.name = NULL},
};

/* One fio thread. Completed I/Os wait in a ring until fio asks for them. */
struct engine {
    pfbd_context* context;
    pfbd_volume* volume;
    struct io_u** done;
    unsigned int ring_size; /* power of two, at least iodepth */
    unsigned int first;
    unsigned int count;
    unsigned int handed_out; /* by the last getevents; valid until the next */
};

static int explain(const char* what, const struct pfbd_engine_options* o, int error) {
    const char* text = pfbd_error_text();

    log_err("pfbd: %s '%s': %s\n", what, o->volume, text && *text ? text : strerror(-error));
    return 1;
}

static void close_engine(struct engine* e) {
    if (e->volume != NULL) pfbd_close(e->volume);
    if (e->context != NULL) pfbd_context_destroy(e->context);
    free(e->done);
    free(e);
}

static struct engine* open_engine(struct thread_data* td, int read_only) {
    const struct pfbd_engine_options* o = td->eo;
    struct engine* e = calloc(1, sizeof(*e));
    pfbd_options settings;
    int r;

    if (e == NULL) return NULL;
    e->ring_size = 1;
    while (e->ring_size < td->o.iodepth) e->ring_size *= 2;
    e->done = calloc(e->ring_size, sizeof(*e->done));
    if (e->done == NULL) {
        free(e);
        return NULL;
    }
    memset(&settings, 0, sizeof(settings));
    settings.struct_bytes = sizeof(settings);
    settings.conductor = o->conductor;
    settings.flags = PFBD_CALLER_THREAD;
    settings.depth = td->o.iodepth;
    settings.io_timeout_ms = o->io_timeout_ms;
    r = pfbd_context_create(&settings, &e->context);
    if (r == 0) r = pfbd_open(e->context, o->volume, read_only ? PFBD_READ_ONLY : 0, &e->volume);
    if (r != 0) {
        explain("cannot open volume", o, r);
        close_engine(e);
        return NULL;
    }
    return e;
}

/* Runs once per job before fio starts its processes, so it leaves nothing open. */
static int pfbd_setup(struct thread_data* td) {
    const struct pfbd_engine_options* o = td->eo;
    struct engine* e;
    pfbd_info info;
    int r;

    if (o->volume == NULL || *o->volume == '\0') {
        log_err("pfbd: which volume? give --volume=NAME\n");
        return 1;
    }
    if (td->o.iodepth > 1024) {
        log_err("pfbd: iodepth %u is over the limit of 1024\n", td->o.iodepth);
        return 1;
    }
    if (td->o.nr_files > 1) {
        log_err("pfbd: a job has one volume: nrfiles must be 1\n");
        return 1;
    }
    e = open_engine(td, 1);
    if (e == NULL) return 1;
    r = pfbd_get_info(e->volume, &info);
    if (r != 0) explain("cannot get the size of volume", o, r);
    close_engine(e);
    if (r != 0) return 1;

    if (td->files_index == 0) {
        add_file(td, o->volume, 0, 0);
        td->o.nr_files = 1;
        td->o.open_files = 1;
    }
    td->files[0]->real_file_size = info.size_bytes;
    td->files[0]->filetype = FIO_TYPE_BLOCK; /* may be trimmed */
    fio_file_set_size_known(td->files[0]);
    return 0;
}

static int pfbd_get_file_size(struct thread_data* td, struct fio_file* f) {
    (void)td;
    (void)f; /* known since setup */
    return 0;
}

static int pfbd_init(struct thread_data* td) {
    struct engine* e = open_engine(td, !td_write(td) && !td_trim(td));

    if (e == NULL) return 1;
    td->io_ops_data = e;
    return 0;
}

static void pfbd_cleanup(struct thread_data* td) {
    struct engine* e = td->io_ops_data;

    if (e != NULL) close_engine(e);
    td->io_ops_data = NULL;
}

/* What the last getevents gave was taken over by fio before it queues or waits again. */
static void retire(struct engine* e) {
    e->first = (e->first + e->handed_out) & (e->ring_size - 1);
    e->count -= e->handed_out;
    e->handed_out = 0;
}

static void on_done(void* argument, int status) {
    struct io_u* io_u = argument;
    struct engine* e = io_u->engine_data;

    if (status != 0) {
        io_u->error = (unsigned int)-status;
        io_u->resid = io_u->xfer_buflen;
    }
    e->done[(e->first + e->count++) & (e->ring_size - 1)] = io_u;
}

static enum fio_q_status pfbd_queue(struct thread_data* td, struct io_u* io_u) {
    struct engine* e = td->io_ops_data;
    int r;

    fio_ro_check(td, io_u);
    io_u->engine_data = e;
    io_u->error = 0;
    io_u->resid = 0;
    switch (io_u->ddir) {
        case DDIR_READ:
            r = pfbd_read(e->volume, io_u->xfer_buf, io_u->xfer_buflen, io_u->offset, on_done,
                          io_u);
            break;
        case DDIR_WRITE:
            r = pfbd_write(e->volume, io_u->xfer_buf, io_u->xfer_buflen, io_u->offset, on_done,
                           io_u);
            break;
        case DDIR_TRIM:
            r = pfbd_discard(e->volume, io_u->xfer_buflen, io_u->offset, on_done, io_u);
            break;
        case DDIR_SYNC:
        case DDIR_DATASYNC:
            r = pfbd_flush(e->volume, on_done, io_u);
            break;
        default:
            r = -ENOTSUP;
            break;
    }
    if (r == 0) return FIO_Q_QUEUED;
    if (r == -EAGAIN) return FIO_Q_BUSY;
    io_u->error = (unsigned int)-r;
    td_verror(td, -r, "pfbd_queue");
    return FIO_Q_COMPLETED;
}

/* fio calls this after every I/O by default. What is queued leaves when fio waits; only a job that
 * pauses between I/Os would leave it lying, so there it is sent at once. */
static int pfbd_commit(struct thread_data* td) {
    struct engine* e = td->io_ops_data;
    int pauses = td->o.thinktime != 0;
    int i;

    for (i = 0; i < DDIR_RWDIR_CNT; i++)
        pauses = pauses || td->o.rate[i] != 0 || td->o.rate_iops[i] != 0;
    if (pauses) {
        int r;

        retire(e);
        r = pfbd_poll(e->context, 0);
        if (r < 0) return r;
    }
    io_u_mark_submit(td, 1);
    return 0;
}

static int64_t wait_us(const struct timespec* t) {
    return t == NULL ? -1 : (int64_t)t->tv_sec * 1000000 + t->tv_nsec / 1000;
}

static int pfbd_getevents(struct thread_data* td, unsigned int min, unsigned int max,
                          const struct timespec* t) {
    struct engine* e = td->io_ops_data;

    retire(e);
    /* What is here is handed out first; what fio queues meanwhile leaves at once at the next poll.
     */
    while (e->count < min || e->count == 0) {
        int r = pfbd_poll(e->context, e->count < min ? wait_us(t) : 0);

        if (r < 0) return r;
        if (min == 0 || (t != NULL && r == 0)) break;
    }
    e->handed_out = e->count < max ? e->count : max;
    return (int)e->handed_out;
}

static struct io_u* pfbd_event(struct thread_data* td, int event) {
    struct engine* e = td->io_ops_data;

    return e->done[(e->first + (unsigned int)event) & (e->ring_size - 1)];
}

static int pfbd_no_file_work(struct thread_data* td, struct fio_file* f) {
    (void)td;
    (void)f; /* the volume is open from init to cleanup, and the library caches nothing */
    return 0;
}

struct ioengine_ops ioengine = {
    .name = "pfbd",
    .version = FIO_IOOPS_VERSION,
    /* No offload: a context belongs to one thread, and fio would end it on another. */
    .flags = FIO_DISKLESSIO | FIO_NOEXTEND | FIO_NODISKUTIL | FIO_RAWIO | FIO_NO_OFFLOAD,
    .setup = pfbd_setup,
    .init = pfbd_init,
    .cleanup = pfbd_cleanup,
    .queue = pfbd_queue,
    .commit = pfbd_commit,
    .getevents = pfbd_getevents,
    .event = pfbd_event,
    .open_file = pfbd_no_file_work,
    .close_file = pfbd_no_file_work,
    .invalidate = pfbd_no_file_work,
    .get_file_size = pfbd_get_file_size,
    .options = options,
    .option_struct_size = sizeof(struct pfbd_engine_options),
};
