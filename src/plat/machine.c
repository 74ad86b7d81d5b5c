/* SPDX-License-Identifier: Apache-2.0 */
/* machine.c - processors and memory as cgroups, cpusets and the affinity leave them to this
 * process.
 *
 * Invariants:
 *   M1  a limit only ever makes a number smaller, and never 0: at least one processor is usable.
 *   M2  a quota or memory limit is the smallest of the process's own cgroup and all its ancestors
 *       that can be seen; the kernel enforces each of them.
 *   M3  a file that is missing, cut or not understood is no limit. Nothing here fails.
 *   M4  everything is read below `root`, so that recorded trees of other hosts can be tested.
 *
 * Where a cgroup lies: /proc/self/cgroup gives the path in each hierarchy, /proc/self/mountinfo
 * where which part of the hierarchy is mounted. A container often sees only its own part (mount
 * root /docker/x), or a path that leads out of its namespace (/../x): then the mount point is as
 * near as one gets. Version 1, version 2 and both at once (hybrid) go the same way.
 *
 * No locks, no allocation, no state but what klawi_cpu_seen remembers; lines that do not fit the
 * buffer are left out (M3), which cgroup's never need.
 *
 * Rejected: sysconf and cpu.max of /sys/fs/cgroup alone, which misses a quota on a parent;
 * cpu.shares and cpu.weight, which are no limits. */
#include "plat/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plat/os.h"

#define PATH 768
#define LINE 1024

/* --- lines of small files --- */
struct lines {
    int fd;
    size_t at, len;
    char buf[512];
};

/* "<root><dir>/<name>", for reading. False: not there. */
static bool lines_open(struct lines *l, const char *root, const char *dir, const char *name) {
    char path[PATH];
    int n = snprintf(path, sizeof path, "%s%s/%s", root, dir, name);
    l->at = l->len = 0;
    l->fd = n < 0 || (size_t)n >= sizeof path ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    return l->fd >= 0;
}

static bool lines_fill(struct lines *l) {
    ssize_t n;
    do
        n = read(l->fd, l->buf, sizeof l->buf);
    while (n < 0 && errno == EINTR);
    l->at = 0;
    l->len = n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* The next line that fits, without its newline. False at the end; the file is closed then. */
static bool lines_next(struct lines *l, char *line, size_t size) {
    size_t n = 0;
    bool any = false;
    while (l->at < l->len || lines_fill(l)) {
        char c = l->buf[l->at++];
        any = true;
        if (c != '\n' && c != '\0') {
            if (n < size)
                line[n] = c;
            n++;
            continue;
        }
        if (n < size) {
            line[n] = '\0';
            return true;
        }
        n = 0;
        any = false;
    }
    close(l->fd);
    l->fd = -1;
    if (any && n < size) { /* the last one has no newline; the next call finds a closed file */
        line[n] = '\0';
        return true;
    }
    return false;
}

static void lines_close(struct lines *l) {
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
}

static bool first_line(const char *root, const char *dir, const char *name, char *line,
                       size_t size) {
    struct lines l;
    if (!lines_open(&l, root, dir, name))
        return false;
    bool ok = lines_next(&l, line, size);
    lines_close(&l);
    return ok;
}

/* Digits up to the end, a blank or `stop`; *end is behind them. False: none, or too many. */
static bool number(const char *s, uint64_t *out, const char **end) {
    uint64_t v = 0;
    const char *p = s;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (v > (UINT64_MAX - 9) / 10)
            return false;
        v = v * 10 + (uint64_t)(*p - '0');
    }
    *out = v;
    *end = p;
    return p > s;
}

static bool number_alone(const char *s, uint64_t *out) {
    const char *end;
    return number(s, out, &end) && end[strspn(end, " \t\r")] == '\0';
}

/* --- sets of processors --- */
static void cpus_add(klawi_cpus *s, unsigned i) {
    s->bits[i / 64] |= UINT64_C(1) << i % 64;
}
static bool cpus_has(const klawi_cpus *s, unsigned i) {
    return s->bits[i / 64] >> i % 64 & 1;
}

unsigned klawi_cpus_count(const klawi_cpus *s) {
    unsigned n = 0;
    for (unsigned i = 0; i < KLAWI_CPUS_MAX / 64; i++)
        n += (unsigned)__builtin_popcountll(s->bits[i]);
    return n;
}

bool klawi_cpus_parse(const char *text, klawi_cpus *out) {
    uint64_t from, to;
    memset(out, 0, sizeof *out);
    text += strspn(text, " \t");
    for (;;) {
        if (!number(text, &from, &text))
            break;
        to = from;
        if (*text == '-' && !number(text + 1, &to, &text))
            break;
        if (to < from || to >= KLAWI_CPUS_MAX)
            break;
        for (; from <= to; from++)
            cpus_add(out, (unsigned)from);
        if (text[strspn(text, " \t\r\n")] == '\0')
            return true;
        if (*text++ != ',')
            break;
    }
    memset(out, 0, sizeof *out);
    return false;
}

/* M1: what both have, unless that is nothing. */
static void cpus_narrow(klawi_cpus *s, const klawi_cpus *by) {
    uint64_t any = 0;
    for (unsigned i = 0; i < KLAWI_CPUS_MAX / 64; i++)
        any |= s->bits[i] & by->bits[i];
    for (unsigned i = 0; any && i < KLAWI_CPUS_MAX / 64; i++)
        s->bits[i] &= by->bits[i];
}

/* --- the cgroups this process is in --- */
struct walk {
    const char *root;
    const char *controller;
    /* Looks into one cgroup's folder. */
    void (*visit)(struct walk *w, const char *dir, bool v2);
    bool mounted; /* a hierarchy with this controller was found */
    bool v1, v2;  /* the process is in one */
    char v1_path[PATH], v2_path[PATH];
    klawi_cpus *cpus;
    uint64_t limit; /* M2: the least so far; UINT64_MAX: none */
};

/* Whether `word` is in a comma-separated list. */
static bool listed(const char *list, const char *word) {
    size_t n = strlen(word);
    while (list) {
        if (strncmp(list, word, n) == 0 && (list[n] == ',' || list[n] == '\0'))
            return true;
        if ((list = strchr(list, ',')) != NULL)
            list++;
    }
    return false;
}

/* /proc/self/cgroup: "4:cpu,cpuacct:/path", "0::/path". */
static void read_paths(struct walk *w) {
    char line[LINE];
    struct lines l;
    if (!lines_open(&l, w->root, "/proc/self", "cgroup"))
        return;
    while (l.fd >= 0 && lines_next(&l, line, sizeof line)) {
        char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
        if (!path || path[1] != '/' || strlen(path + 1) >= PATH)
            continue;
        *list++ = *path++ = '\0';
        if (strcmp(line, "0") == 0 && *list == '\0') {
            memcpy(w->v2_path, path, strlen(path) + 1);
            w->v2 = true;
        } else if (listed(list, w->controller)) {
            memcpy(w->v1_path, path, strlen(path) + 1);
            w->v1 = true;
        }
    }
    lines_close(&l);
}

/* Undoes the \040 of mountinfo, in place. */
static void unescape(char *s) {
    char *to = s;
    for (; *s; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
            s[3] >= '0' && s[3] <= '7') {
            *to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
            s += 3;
        } else {
            *to++ = *s;
        }
    }
    *to = '\0';
}

/* From the process's cgroup up to the mount point (M2). `shown` is the part of the hierarchy that
 * is mounted there. */
static void climb(struct walk *w, const char *mount, const char *shown, const char *path, bool v2) {
    char dir[PATH];
    size_t n = strcmp(shown, "/") == 0 ? 0 : strlen(shown), base = strlen(mount);
    const char *rest =
        strncmp(path, shown, n) == 0 && (path[n] == '/' || path[n] == '\0') ? path + n : "";
    if (strstr(rest, "/.."))
        rest = ""; /* out of this namespace's sight */
    if (strcmp(mount, "/") == 0)
        base = 0;
    int len = snprintf(dir, sizeof dir, "%.*s%s", (int)base, mount, rest);
    if (len < 0 || (size_t)len >= sizeof dir)
        return;
    for (;;) {
        w->visit(w, dir, v2);
        char *cut = strrchr(dir + base, '/');
        if (!cut)
            return;
        *cut = '\0';
    }
}

/* One line of mountinfo: id parent device root mount options … - type source options. */
static void mount_line(struct walk *w, char *line) {
    char *field[5], *at = line, *save;
    char *tail = strstr(line, " - ");
    if (!tail)
        return;
    *tail = '\0';
    tail += 3;
    for (int i = 0; i < 5; i++, at = NULL)
        if ((field[i] = strtok_r(at, " ", &save)) == NULL)
            return;
    char *type = strtok_r(tail, " ", &save), *source = strtok_r(NULL, " ", &save);
    char *options = source ? strtok_r(NULL, " ", &save) : NULL;
    if (!options)
        return;
    bool v2 = strcmp(type, "cgroup2") == 0;
    if (!(v2 ? w->v2 : strcmp(type, "cgroup") == 0 && w->v1 && listed(options, w->controller)))
        return;
    unescape(field[3]);
    unescape(field[4]);
    w->mounted = true;
    climb(w, field[4], field[3], v2 ? w->v2_path : w->v1_path, v2);
}

static void walk(struct walk *w) {
    char line[LINE];
    struct lines l;
    read_paths(w);
    if (lines_open(&l, w->root, "/proc/self", "mountinfo")) {
        while (l.fd >= 0 && lines_next(&l, line, sizeof line))
            mount_line(w, line);
        lines_close(&l);
    }
    if (w->mounted)
        return;
    /* No word on mounts: the places everybody uses. */
    climb(w, "/sys/fs/cgroup", "/", w->v2 ? w->v2_path : "/", true);
    snprintf(line, sizeof line, "/sys/fs/cgroup/%s", w->controller);
    climb(w, line, "/", w->v1 ? w->v1_path : "/", false);
}

/* --- what is looked for in a cgroup --- */
static void lower(struct walk *w, uint64_t v) {
    if (v < w->limit)
        w->limit = v;
}

/* In thousandths of a processor, rounded up. */
static void quota_visit(struct walk *w, const char *dir, bool v2) {
    char line[64];
    const char *end;
    uint64_t quota, period;
    if (v2) {
        if (!first_line(w->root, dir, "cpu.max", line, sizeof line) ||
            !number(line, &quota, &end) || *end != ' ' || !number_alone(end + 1, &period))
            return;
    } else if (!first_line(w->root, dir, "cpu.cfs_quota_us", line, sizeof line) ||
               !number_alone(line, &quota) ||
               !first_line(w->root, dir, "cpu.cfs_period_us", line, sizeof line) ||
               !number_alone(line, &period)) {
        return;
    }
    if (quota == 0 || period == 0 || quota > UINT64_MAX / 1000)
        return;
    lower(w, quota * 1000 / period + (quota * 1000 % period != 0));
}

static void cpuset_visit(struct walk *w, const char *dir, bool v2) {
    char line[LINE];
    klawi_cpus set;
    bool ok = v2 ? first_line(w->root, dir, "cpuset.cpus.effective", line, sizeof line)
                 : first_line(w->root, dir, "cpuset.effective_cpus", line, sizeof line) ||
                       first_line(w->root, dir, "cpuset.cpus", line, sizeof line);
    if (ok && klawi_cpus_parse(line, &set))
        cpus_narrow(w->cpus, &set);
}

static void memory_visit(struct walk *w, const char *dir, bool v2) {
    char line[64];
    uint64_t v;
    if (first_line(w->root, dir, v2 ? "memory.max" : "memory.limit_in_bytes", line, sizeof line) &&
        number_alone(line, &v) && v > 0)
        lower(w, v);
}

/* --- putting it together --- */
/* The value behind "<name>" at a line's start. */
static bool proc_value(const char *root, const char *dir, const char *file, const char *name,
                       char *out, size_t size) {
    char line[LINE];
    struct lines l;
    bool found = false;
    if (!lines_open(&l, root, dir, file))
        return false;
    while (!found && l.fd >= 0 && lines_next(&l, line, sizeof line)) {
        if (strncmp(line, name, strlen(name)) != 0)
            continue;
        const char *v = line + strlen(name);
        v += strspn(v, " \t");
        found = (size_t)snprintf(out, size, "%s", v) < size;
    }
    lines_close(&l);
    return found;
}

static bool affinity(const char *root, klawi_cpus *out) {
    char text[LINE];
    memset(out, 0, sizeof *out);
    if (*root == '\0' && sched_getaffinity(0, sizeof *out, (cpu_set_t *)(void *)out) == 0)
        return true;
    return proc_value(root, "/proc/self", "status", "Cpus_allowed_list:", text, sizeof text) &&
           klawi_cpus_parse(text, out);
}

static unsigned at_least_one(long n) {
    return n > 0 ? (unsigned)n : 1;
}

static void detect_cpus(const char *root, klaw_machine *out, klawi_cpus *allowed) {
    char line[LINE];
    klawi_cpus online;
    bool known = first_line(root, "/sys/devices/system/cpu", "online", line, sizeof line) &&
                 klawi_cpus_parse(line, &online);
    if (!affinity(root, allowed)) {
        if (known)
            *allowed = online;
        else /* nobody tells which, only how many */
            for (unsigned i = *root ? 1 : at_least_one(sysconf(_SC_NPROCESSORS_ONLN)); i-- > 0;)
                cpus_add(allowed, i % KLAWI_CPUS_MAX);
    } else if (known) {
        cpus_narrow(allowed, &online);
    }
    struct walk set = {.root = root, .controller = "cpuset", .visit = cpuset_visit};
    set.cpus = allowed;
    walk(&set);
    out->allowed = klawi_cpus_count(allowed);
    out->online = known ? klawi_cpus_count(&online) : out->allowed;
    out->usable = out->allowed;
}

static void detect_quota(const char *root, klaw_machine *out) {
    struct walk w = {.root = root, .controller = "cpu", .visit = quota_visit, .limit = UINT64_MAX};
    walk(&w);
    if (w.limit >= UINT32_MAX)
        return;
    out->quota_milli = (uint32_t)w.limit;
    uint32_t whole = out->quota_milli / 1000 + (out->quota_milli % 1000 != 0);
    if (whole < out->usable)
        out->usable = whole;
}

/* A core counts when its first thread, allowed or not, is met the first time. */
static uint32_t detect_cores(const char *root, const klawi_cpus *allowed) {
    klawi_cpus seen = {{0}}, siblings;
    char dir[64], line[LINE];
    for (unsigned i = 0; i < KLAWI_CPUS_MAX; i++) {
        if (!cpus_has(allowed, i))
            continue;
        unsigned first = i;
        snprintf(dir, sizeof dir, "/sys/devices/system/cpu/cpu%u/topology", i);
        if ((first_line(root, dir, "core_cpus_list", line, sizeof line) ||
             first_line(root, dir, "thread_siblings_list", line, sizeof line)) &&
            klawi_cpus_parse(line, &siblings) && cpus_has(&siblings, i))
            for (first = 0; !cpus_has(&siblings, first);)
                first++;
        cpus_add(&seen, first);
    }
    return klawi_cpus_count(&seen);
}

static void detect_memory(const char *root, klaw_machine *out) {
    char text[64];
    const char *end;
    uint64_t kb;
    if (proc_value(root, "/proc", "meminfo", "MemTotal:", text, sizeof text) &&
        number(text, &kb, &end) && strcmp(end, " kB") == 0 && kb <= UINT64_MAX / 1024)
        out->memory = kb * 1024;
    struct walk w = {
        .root = root, .controller = "memory", .visit = memory_visit, .limit = UINT64_MAX};
    walk(&w);
    /* Version 1 says "no limit" by a number near 2^63. */
    if (out->memory && w.limit > out->memory)
        w.limit = out->memory;
    out->memory_limit = w.limit >= UINT64_C(1) << 62 ? 0 : w.limit;
}

void klawi_detect(const char *root, unsigned what, klaw_machine *out) {
    memset(out, 0, sizeof *out);
    if (what & KLAWI_DETECT_CPUS) {
        klawi_cpus allowed;
        detect_cpus(root, out, &allowed);
        detect_quota(root, out);
        if (what & KLAWI_DETECT_CORES)
            out->cores = detect_cores(root, &allowed);
    }
    if (what & KLAWI_DETECT_MEMORY)
        detect_memory(root, out);
}

static unsigned
    seen; /* only a number; by builtins, which are no points of the deterministic build */

unsigned klawi_cpu_usable(void) {
    klaw_machine m;
    klawi_detect("", KLAWI_DETECT_CPUS, &m);
    __atomic_store_n(&seen, m.usable, __ATOMIC_RELAXED);
    return m.usable;
}

unsigned klawi_cpu_seen(void) {
    unsigned n = __atomic_load_n(&seen, __ATOMIC_RELAXED);
    return KLAWI_LIKELY(n != 0) ? n : klawi_cpu_usable();
}
