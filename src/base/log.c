/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - levels, and the way of a record to its descriptor.
 *
 * A record is put together on the caller's stack, becomes one line in a buffer of 2 KiB there
 * (log_line.c), goes out by one write(), and is then shown to the hooks (log_hook.c). Nothing is
 * allocated and no klaw lock is taken, so logging works out of memory, under load, and from any
 * host.
 *
 * Invariants:
 *   L1  nothing but one relaxed load happens for a record whose level is off.
 *   L2  one record is one write() of at most KLAW_LOG_LINE_MAX bytes (less than PIPE_BUF): lines
 *       of different hosts don't mix. Only where the kernel took a part of it does a second
 *       write follow.
 *   L3  a line that broke off is ended by the next one, which begins with a newline (torn).
 *   L4  errno is what it was.
 *
 * A descriptor that is full and non-blocking is waited for 100 ms at most; then the line is
 * counted as dropped. Rejected: a queue and a writer thread: lines would be lost in a crash,
 * which is when they are wanted. */
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "plat/os.h"

#define STALL_MS 100

int klaw_log_level_ = KLAW_LEVEL_OFF; /* (a) relaxed, by __atomic: the header is C++, too */

_Atomic(klawi_log_fill) klawi_log_context;
_Atomic(klawi_log_fill) klawi_log_fiber;

static _Atomic int sink_fd = STDERR_FILENO;     /* (a) relaxed */
static _Atomic int sink_format = KLAW_LOG_JSON; /* (a) relaxed */
static _Atomic uint64_t dropped;                /* (a) relaxed */
static _Atomic bool torn;                       /* (a) relaxed, L3 */

static const char *const level_names[] = {"off", "error", "warn", "info", "debug", "trace"};
#define LEVELS (sizeof level_names / sizeof level_names[0])

/* ---- settings ---- */

void klaw_log_set_level(klaw_log_level level) {
    int v = (unsigned)level < LEVELS ? (int)level : (int)KLAW_LEVEL_OFF;
    __atomic_store_n(&klaw_log_level_, v, __ATOMIC_RELAXED);
}

klaw_log_level klaw_log_get_level(void) {
    return (klaw_log_level)__atomic_load_n(&klaw_log_level_, __ATOMIC_RELAXED);
}

const char *klaw_log_level_name(klaw_log_level level) {
    return (unsigned)level < LEVELS ? level_names[level] : "?";
}

static bool same_word(const char *a, const char *lower) {
    for (; *a && *lower; a++, lower++) {
        char c = *a >= 'A' && *a <= 'Z' ? (char)(*a - 'A' + 'a') : *a;
        if (c != *lower)
            return false;
    }
    return *a == *lower;
}

klaw_err klaw_log_level_parse(const char *name, klaw_log_level *out) {
    if (!name || !out)
        return KLAW_INVALID;
    for (size_t i = 0; i < LEVELS; i++) {
        if (!same_word(name, level_names[i]))
            continue;
        *out = (klaw_log_level)i;
        return KLAW_OK;
    }
    return KLAW_INVALID;
}

void klaw_log_set_format(klaw_log_format format) {
    atomic_store_explicit(&sink_format, (int)format, memory_order_relaxed);
}

void klaw_log_set_fd(int fd) {
    atomic_store_explicit(&sink_fd, fd, memory_order_relaxed);
}

uint64_t klaw_log_dropped(void) {
    return atomic_load_explicit(&dropped, memory_order_relaxed);
}

/* ---- the sink ---- */

/* Whether the descriptor takes something within what is left of the patience. */
static bool wait_writable(int fd, int *patience_ms) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int64_t begin = klawi_clock();
    if (*patience_ms <= 0)
        return false;
    int n = poll(&p, 1, *patience_ms);
    *patience_ms -= (int)((klawi_clock() - begin) / 1000000) + 1;
    return n > 0 || (n < 0 && errno == EINTR);
}

static void sink_write(int fd, const char *line, size_t size) {
    int patience_ms = STALL_MS;
    size_t done = 0;
    while (done < size) {
        ssize_t n = write(fd, line + done, size - done);
        if (n > 0)
            done += (size_t)n;
        else if (n < 0 && errno == EINTR)
            continue;
        else if (n == 0 || errno != EAGAIN || !wait_writable(fd, &patience_ms))
            break;
    }
    if (done == size)
        return;
    atomic_fetch_add_explicit(&dropped, 1, memory_order_relaxed);
    if (done > 0)
        atomic_store_explicit(&torn, true, memory_order_relaxed); /* L3 */
}

/* Apart, so that hooks have the stack that the line needs. */
static KLAWI_NOINLINE void write_line(int fd, const klaw_log_record *record) {
    char line[1 + KLAW_LOG_LINE_MAX];
    klaw_log_format format =
        (klaw_log_format)atomic_load_explicit(&sink_format, memory_order_relaxed);
    line[0] = '\n';
    size_t size = klawi_log_line(line + 1, format, record);
    if (KLAWI_UNLIKELY(atomic_load_explicit(&torn, memory_order_relaxed)) &&
        atomic_exchange_explicit(&torn, false, memory_order_relaxed))
        sink_write(fd, line, 1 + size);
    else
        sink_write(fd, line + 1, size);
}

void klaw_log_write(klaw_log_level level, const char *message, const klaw_log_field *fields,
                    size_t n) {
    if (level < KLAW_LEVEL_ERROR || level > KLAW_LEVEL_TRACE || !klaw_log_on(level))
        return;
    int kept_errno = errno; /* L4 */
    klaw_log_record record = {
        .time = klawi_wall_clock(),
        .level = level,
        .message = message ? message : "",
        .fields = fields,
        .n_fields = fields ? n : 0,
    };
    /* Pair with the release of who sets them. */
    klawi_log_fill fiber = atomic_load_explicit(&klawi_log_fiber, memory_order_acquire);
    klawi_log_fill context = atomic_load_explicit(&klawi_log_context, memory_order_acquire);
    if (fiber)
        fiber(&record);
    if (context)
        context(&record);
    int fd = atomic_load_explicit(&sink_fd, memory_order_relaxed);
    if (fd >= 0)
        write_line(fd, &record);
    klawi_log_hooks_run(&record);
    errno = kept_errno;
}
