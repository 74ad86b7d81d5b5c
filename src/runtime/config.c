/* SPDX-License-Identifier: Apache-2.0 */
/* config.c - klaw_init and klaw_config_get: explicit beats environment beats detection.
 *
 * Invariants:
 *   C1  `settled` is NULL or a configuration that is complete, valid and never changed any more;
 *       klaw_init either publishes one or leaves everything as it was.
 *   C2  klaw_config_get and a klaw_run without workers answer the same concurrency: both ask
 *       klawi_concurrency (base/env.c), which klaw_init tells.
 *   C3  a wrong value is refused where it stands, given or in the environment, by a message that
 *       lists the right ones; it is never replaced silently.
 *
 * The lock guards `settled`; blocks are made before and freed after it is held. Nobody waits here.
 *
 * Rejected: reading the environment in a constructor. A program may set it first. */
#include "klaw/config.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/env.h"
#include "base/inspect.h"
#include "base/lock.h"
#include "base/text.h"
#include "plat/machine.h"

#define PASSWD_MAX 65536

struct option {
    char *key, *value;
};

struct settings {
    char backend[16];
    klaw_source backend_source;
    uint32_t concurrency;
    klaw_source concurrency_source;
    klaw_log_level log_level;
    klaw_source log_level_source;
    klaw_source path_source;
    klaw_source inspect_source;
    bool inspect;
    char path[KLAW_CONFIG_PATH_MAX + 1];
    size_t n_options;
    struct option *options; /* by key */
};

static klawi_lock lock = KLAWI_LOCK_INIT(KLAWI_RANK_RUNTIME);
static struct settings *settled; /* (lock) C1 */

const char *klaw_source_name(klaw_source source) {
    static const char *const names[] = {"detected", "environment", "explicit"};
    return (unsigned)source < 3 ? names[source] : "?";
}

/* The value of one setting and where it comes from; NULL: detection. */
static const char *choose(const char *given, const char *variable, klaw_source *source,
                          const char **what) {
    *source = given ? KLAW_SOURCE_EXPLICIT : KLAW_SOURCE_ENVIRONMENT;
    const char *v = given ? given : klawi_env(variable);
    if (!v)
        *source = KLAW_SOURCE_DETECTED;
    else if (!given)
        *what = variable;
    return v;
}

static klaw_err choose_backend(const char *given, struct settings *s, klaw_error_info *info) {
    const char *what = "backend";
    const char *v = choose(given, "KLAW_BACKEND", &s->backend_source, &what);
    if (!v)
        v = "local";
    if (strcmp(v, "local") != 0 && strcmp(v, "ray") != 0)
        return klawi_error(info, KLAW_INVALID, "%s is '%.40s': it has to be 'local' or 'ray'", what,
                           v);
    snprintf(s->backend, sizeof s->backend, "%s", v);
    return KLAW_OK;
}

static klaw_err choose_concurrency(uint32_t given, struct settings *s, klaw_error_info *info) {
    if (given > KLAW_CONFIG_CONCURRENCY_MAX)
        return klawi_error(info, KLAW_INVALID,
                           "concurrency is %u: it has to be a number from 1 to %d", (unsigned)given,
                           KLAW_CONFIG_CONCURRENCY_MAX);
    s->concurrency = given;
    s->concurrency_source = KLAW_SOURCE_EXPLICIT;
    if (given)
        return KLAW_OK;
    return klawi_concurrency(&s->concurrency, &s->concurrency_source, info);
}

static klaw_err choose_level(const char *given, struct settings *s, klaw_error_info *info) {
    const char *what = "log_level";
    const char *v = choose(given, "KLAW_LOG_LEVEL", &s->log_level_source, &what);
    if (!v)
        s->log_level = klaw_log_get_level();
    else if (klaw_log_level_parse(v, &s->log_level) != KLAW_OK)
        return klawi_error(info, KLAW_INVALID,
                           "%s is '%.40s': it has to be 'off', 'error', 'warn', 'info', 'debug' or "
                           "'trace'",
                           what, v);
    return KLAW_OK;
}

/* Writes the home folder: HOME, else the user's entry. */
static klaw_err home(char *out, size_t size, klaw_error_info *info) {
    const char *h = klawi_env("HOME");
    struct passwd entry, *found = NULL;
    char *buf = NULL;
    klaw_err e = KLAW_OK;
    if (!h) {
        if ((buf = klawi_alloc(PASSWD_MAX)) == NULL)
            return KLAW_NOMEM;
        if (getpwuid_r(geteuid(), &entry, buf, PASSWD_MAX, &found) == 0 && found && found->pw_dir &&
            *found->pw_dir)
            h = found->pw_dir;
    }
    if (!h)
        e = klawi_error(info, KLAW_NOT_FOUND,
                        "no checkpoint_path: HOME is not set and the user has no home folder; give "
                        "one or set KLAW_CHECKPOINT_PATH");
    else if ((size_t)snprintf(out, size, "%s", h) >= size)
        e = klawi_error(info, KLAW_LIMIT, "the home folder's path is longer than %d bytes",
                        KLAW_CONFIG_PATH_MAX);
    klawi_free(buf);
    return e;
}

static klaw_err choose_path(const char *given, struct settings *s, klaw_error_info *info) {
    const char *what = "checkpoint_path";
    const char *v = choose(given, "KLAW_CHECKPOINT_PATH", &s->path_source, &what);
    size_t at = 0;
    if (!v)
        v = "~/.klaw/checkpoints/";
    if (!*v || !klawi_utf8_valid(v, strlen(v)))
        return klawi_error(info, KLAW_INVALID, "%s has to be the path of a folder, in UTF-8", what);
    if (v[0] == '~' && (v[1] == '/' || v[1] == '\0')) {
        klaw_err e = home(s->path, sizeof s->path, info);
        if (e)
            return e;
        v++;
        at = strlen(s->path);
        while (at > 0 && *v && s->path[at - 1] == '/')
            at--;
    }
    if ((size_t)snprintf(s->path + at, sizeof s->path - at, "%s", v) >= sizeof s->path - at)
        return klawi_error(info, KLAW_LIMIT, "%s is longer than %d bytes", what,
                           KLAW_CONFIG_PATH_MAX);
    return KLAW_OK;
}

static klaw_err choose_inspect(bool given, struct settings *s, klaw_error_info *info) {
    s->inspect = given;
    s->inspect_source = given                       ? KLAW_SOURCE_EXPLICIT
                        : klawi_env("KLAW_INSPECT") ? KLAW_SOURCE_ENVIRONMENT
                                                    : KLAW_SOURCE_DETECTED;
    return given ? KLAW_OK : klawi_inspect_env(&s->inspect, info);
}

/* Everything but the backend's options. */
static klaw_err resolve(const klaw_init_opts *o, struct settings *s, klaw_error_info *info) {
    klaw_err e = choose_backend(o->backend, s, info);
    if (e == KLAW_OK)
        e = choose_concurrency(o->concurrency, s, info);
    if (e == KLAW_OK)
        e = choose_level(o->log_level, s, info);
    if (e == KLAW_OK)
        e = choose_path(o->checkpoint_path, s, info);
    if (e == KLAW_OK)
        e = choose_inspect(o->inspect, s, info);
    return e;
}

/* --- options --- */
static void settings_free(struct settings *s) {
    if (!s)
        return;
    for (size_t i = 0; s->options && i < s->n_options; i++) {
        klawi_free(s->options[i].key);
        klawi_free(s->options[i].value);
    }
    klawi_free(s->options);
    klawi_free(s);
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const struct option *)a)->key, ((const struct option *)b)->key);
}

static char *copy(const char *text) {
    size_t n = strlen(text) + 1;
    char *p = klawi_alloc(n);
    return p ? memcpy(p, text, n) : NULL;
}

static klaw_err check_options(const klaw_init_opts *o, const char *backend, klaw_error_info *info) {
    if (o->n_options && !o->options)
        return klawi_error(info, KLAW_INVALID, "options is NULL but n_options is not 0");
    if (o->n_options && strcmp(backend, "local") == 0)
        return klawi_error(info, KLAW_INVALID,
                           "option '%.40s': the backend 'local' has no options; right is none",
                           o->options[0].key ? o->options[0].key : "");
    if (o->n_options > KLAW_CONFIG_OPTIONS_MAX)
        return klawi_error(info, KLAW_LIMIT, "more than %d options", KLAW_CONFIG_OPTIONS_MAX);
    for (size_t i = 0; i < o->n_options; i++) {
        const char *k = o->options[i].key, *v = o->options[i].value;
        if (!k || !*k || !v || !klawi_utf8_valid(k, strlen(k)) || !klawi_utf8_valid(v, strlen(v)))
            return klawi_error(info, KLAW_INVALID,
                               "option %zu has to have a key and a value, in UTF-8", i);
        if (strlen(k) > KLAW_CONFIG_KEY_MAX || strlen(v) > KLAW_CONFIG_VALUE_MAX)
            return klawi_error(info, KLAW_LIMIT,
                               "option '%.63s': a key has at most %d bytes, a value %d", k,
                               KLAW_CONFIG_KEY_MAX, KLAW_CONFIG_VALUE_MAX);
        for (size_t j = 0; j < i; j++)
            if (strcmp(o->options[j].key, k) == 0)
                return klawi_error(info, KLAW_INVALID, "option '%.63s' is given twice", k);
    }
    return KLAW_OK;
}

static klaw_err copy_options(const klaw_init_opts *o, struct settings *s, klaw_error_info *info) {
    klaw_err e = check_options(o, s->backend, info);
    if (e || o->n_options == 0)
        return e;
    s->options = klawi_calloc(o->n_options, sizeof *s->options);
    if (!s->options)
        return KLAW_NOMEM;
    s->n_options = o->n_options;
    for (size_t i = 0; i < o->n_options; i++) {
        s->options[i].key = copy(o->options[i].key);
        s->options[i].value = copy(o->options[i].value);
        if (!s->options[i].key || !s->options[i].value)
            return KLAW_NOMEM;
    }
    qsort(s->options, s->n_options, sizeof *s->options, by_key);
    return KLAW_OK;
}

/* --- settling --- */
/* What of the second call contradicts the first one; NULL: nothing. What is not given does not. */
static const char *contradiction(const struct settings *s, const struct settings *first,
                                 const klaw_init_opts *o) {
    if (o->backend && strcmp(s->backend, first->backend) != 0)
        return "backend";
    if (o->concurrency && s->concurrency != first->concurrency)
        return "concurrency";
    if (o->log_level && s->log_level != first->log_level)
        return "log_level";
    if (o->checkpoint_path && strcmp(s->path, first->path) != 0)
        return "checkpoint_path";
    if (o->inspect && !first->inspect)
        return "inspect";
    if (o->n_options && s->n_options != first->n_options)
        return "options";
    for (size_t i = 0; i < o->n_options; i++)
        if (strcmp(s->options[i].key, first->options[i].key) != 0 ||
            strcmp(s->options[i].value, first->options[i].value) != 0)
            return "options";
    return NULL;
}

/* Publishes s, unless somebody was first. */
static klaw_err settle(struct settings *s, const klaw_init_opts *o, klaw_error_info *info) {
    const char *what = NULL;
    klawi_lock_acquire(&lock);
    struct settings *first = settled;
    if (first) {
        what = contradiction(s, first, o);
    } else {
        settled = s;
        klawi_concurrency_settle(s->concurrency, s->concurrency_source);
        klaw_log_set_level(s->log_level);
    }
    klawi_lock_release(&lock);
    if (first)
        settings_free(s);
    if (what)
        return klawi_error(info, KLAW_EXISTS,
                           "klaw_init was called before with another %s; klaw_deinit forgets it",
                           what);
    return KLAW_OK;
}

klaw_err klaw_init_sized(const klaw_init_opts *opts, size_t opts_size, klaw_error_info *info) {
    klaw_init_opts o = {0};
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    struct settings *s = klawi_calloc(1, sizeof *s);
    if (!s)
        return klawi_error(info, KLAW_NOMEM, "out of memory");
    klaw_err e = resolve(&o, s, info);
    if (e == KLAW_OK)
        e = copy_options(&o, s, info);
    if (e == KLAW_OK)
        e = klawi_inspect_begin(o.inspect, info);
    if (e == KLAW_OK)
        return settle(s, &o, info);
    settings_free(s);
    return e == KLAW_NOMEM ? klawi_error(info, e, "out of memory") : e;
}

void klaw_deinit(void) {
    klawi_lock_acquire(&lock);
    struct settings *s = settled;
    settled = NULL;
    klawi_concurrency_settle(0, KLAW_SOURCE_DETECTED);
    klawi_lock_release(&lock);
    if (s)
        klaw_inspect_close();
    settings_free(s);
}

/* --- telling --- */
klaw_err klaw_machine_get(klaw_machine *out) {
    if (!out)
        return KLAW_INVALID;
    klawi_detect("", KLAWI_DETECT_CPUS | KLAWI_DETECT_CORES | KLAWI_DETECT_MEMORY, out);
    return KLAW_OK;
}

static void tell(const struct settings *s, klaw_config *out) {
    memset(out, 0, sizeof *out);
    memcpy(out->backend, s->backend, sizeof out->backend);
    memcpy(out->checkpoint_path, s->path, sizeof out->checkpoint_path);
    out->concurrency = s->concurrency;
    out->log_level = s->log_level;
    out->n_options = s->n_options;
    out->backend_source = s->backend_source;
    out->concurrency_source = s->concurrency_source;
    out->log_level_source = s->log_level_source;
    out->checkpoint_path_source = s->path_source;
    out->inspect = s->inspect;
    out->inspect_source = s->inspect_source;
}

klaw_err klaw_config_get(klaw_config *out, klaw_error_info *info) {
    static const klaw_init_opts none;
    if (!out)
        return klawi_error(info, KLAW_INVALID, "out is NULL");
    klawi_lock_acquire(&lock);
    bool there = settled != NULL;
    if (there)
        tell(settled, out);
    klawi_lock_release(&lock);
    if (!there) {
        struct settings *s = klawi_calloc(1, sizeof *s);
        klaw_err e = s ? resolve(&none, s, info) : KLAW_NOMEM;
        if (e == KLAW_OK)
            tell(s, out);
        settings_free(s);
        if (e)
            return e == KLAW_NOMEM ? klawi_error(info, e, "out of memory") : e;
    }
    out->initialized = there;
    return klaw_machine_get(&out->machine);
}

klaw_err klaw_config_option(size_t i, char *key, size_t key_size, char *value, size_t value_size) {
    klaw_err e = KLAW_NOT_FOUND;
    klawi_lock_acquire(&lock);
    if (settled && i < settled->n_options) {
        const struct option *o = &settled->options[i];
        size_t nk = strlen(o->key) + 1, nv = strlen(o->value) + 1;
        e = (key && nk > key_size) || (value && nv > value_size) ? KLAW_LIMIT : KLAW_OK;
        if (e == KLAW_OK && key)
            memcpy(key, o->key, nk);
        if (e == KLAW_OK && value)
            memcpy(value, o->value, nv);
    }
    klawi_lock_release(&lock);
    return e;
}
