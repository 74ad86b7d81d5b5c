/* SPDX-License-Identifier: Apache-2.0 */
/* functions.c - what the tests run on Ray's workers by symbol. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "klaw/klaw.h"

/* Exported, whatever the flags say. */
#define HERE __attribute__((visibility("default")))

HERE klaw_err doubled(const void *arg, size_t size, klaw_blob **out);
HERE klaw_err nothing(const void *arg, size_t size, klaw_blob **out);
HERE klaw_err refuses(const void *arg, size_t size, klaw_blob **out);
HERE klaw_err crashes(const void *arg, size_t size, klaw_blob **out);
HERE klaw_err where(const void *arg, size_t size, klaw_blob **out);
HERE klaw_err fibers(const void *arg, size_t size, klaw_blob **out);
HERE klaw_err waits(const void *arg, size_t size, klaw_blob **out);

/* The bytes twice. */
klaw_err doubled(const void *arg, size_t size, klaw_blob **out) {
    klaw_err e = klaw_blob_new(NULL, 2 * size, out);
    if (!e && size) {
        memcpy(klaw_blob_data(*out), arg, size);
        memcpy((char *)klaw_blob_data(*out) + size, arg, size);
    }
    return e;
}

klaw_err nothing(const void *arg, size_t size, klaw_blob **out) {
    (void)arg;
    (void)size;
    (void)out;
    return KLAW_OK;
}

klaw_err refuses(const void *arg, size_t size, klaw_blob **out) {
    (void)arg;
    (void)size;
    (void)out;
    return KLAW_CORRUPT;
}

klaw_err crashes(const void *arg, size_t size, klaw_blob **out) {
    (void)arg;
    (void)size;
    (void)out;
    raise(SIGKILL);
    return KLAW_OK;
}

klaw_err where(const void *arg, size_t size, klaw_blob **out) {
    uint64_t pid = (uint64_t)getpid();
    (void)arg;
    (void)size;
    return klaw_blob_new(&pid, sizeof pid, out);
}

/* Waits for as long as its argument says, in ns. */
klaw_err waits(const void *arg, size_t size, klaw_blob **out) {
    int64_t ns = 0;
    (void)out;
    memcpy(&ns, arg, size < sizeof ns ? size : sizeof ns);
    return klaw_sleep(klaw_after(ns));
}

static _Atomic uint64_t ran;

static klaw_err one(void *arg) {
    (void)arg;
    ran++;
    return klaw_yield();
}

static klaw_err many(void *arg) {
    for (uint64_t i = 0; i < *(uint64_t *)arg; i++) {
        klaw_err e = klaw_go(one, NULL);
        if (e)
            return e;
    }
    return KLAW_OK;
}

/* A run of klaw inside the worker: as many fibers as its argument says. */
klaw_err fibers(const void *arg, size_t size, klaw_blob **out) {
    uint64_t n = 0;
    memcpy(&n, arg, size < sizeof n ? size : sizeof n);
    ran = 0;
    klaw_err e = klaw_run(many, &n, &(klaw_run_opts){.workers = 2});
    uint64_t total = ran;
    return e ? e : klaw_blob_new(&total, sizeof total, out);
}

/* --- an actor: a sum --- */

static klaw_err sum_start(const void *arg, size_t size, void **state) {
    uint64_t *sum = calloc(1, sizeof *sum);
    if (!sum)
        return KLAW_NOMEM;
    if (size == sizeof *sum)
        memcpy(sum, arg, size);
    if (*sum == UINT64_MAX) {
        free(sum);
        return KLAW_LIMIT;
    }
    *state = sum;
    return KLAW_OK;
}

static klaw_err sum_handle(void *state, const void *message, size_t size, klaw_blob **reply) {
    uint64_t n, *sum = state;
    if (size != sizeof n)
        return KLAW_INVALID;
    memcpy(&n, message, size);
    if (n == UINT64_MAX)
        raise(SIGKILL);
    *sum += n;
    return klaw_blob_new(sum, sizeof *sum, reply);
}

HERE extern const klaw_remote_behavior sum;
const klaw_remote_behavior sum = {.start = sum_start, .handle = sum_handle, .stop = free};
HERE extern const klaw_remote_behavior hollow;
const klaw_remote_behavior hollow = {.start = sum_start};
