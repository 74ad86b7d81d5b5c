/* SPDX-License-Identifier: Apache-2.0 */
/* remote_task.c - C functions and C actors on Ray's workers: one question to the backend each. The worker
 * loads the library and calls the symbol (klaw_core/runtime/channels/ray/_native.py). */
#include <string.h>

#include "base/alloc.h"
#include "base/env.h"
#include "base/text.h"
#include "klaw/remote.h"
#include "plat/plat.h"
#include "runtime/remote_desk.h"

struct klaw_remote_ref {
    uint64_t key; /* (c) the backend's name of it */
};

static void member_string(struct klawi_text *t, bool *first, const char *name, const char *value) {
    if (!value)
        return;
    klawi_text_member(t, first, name);
    (void)klawi_text_json_string(t, value, strlen(value)); /* t->full tells */
}

/* What a worker is to run, and where. */
typedef struct errand {
    enum klawi_verb verb;
    const char *library, *symbol, *name;
    const void *data;
    size_t size;
} errand;

static void put_errand(struct klawi_text *t, const errand *w, const klaw_remote_task_opts *o) {
    bool first = true;
    klawi_text_put(t, "{", 1);
    member_string(t, &first, "library", w->library);
    member_string(t, &first, "symbol", w->symbol);
    member_string(t, &first, "name", w->name);
    member_string(t, &first, "address", o->address);
    member_string(t, &first, "namespace", o->namespace_);
    member_string(t, &first, "resources", o->resources);
    klawi_text_member(t, &first, "timeout");
    klawi_text_f64(t, (double)(o->connect_ns ? o->connect_ns : KLAW_S(60)) / 1e9);
    klawi_text_member(t, &first, "cpus");
    klawi_text_f64(t, o->cpus > 0 ? o->cpus : o->cpus < 0 ? 0 : 1);
    klawi_text_member(t, &first, "retries");
    klawi_text_i64(t, o->retries);
    klawi_text_put(t, "}", 2); /* with its NUL */
}

static klaw_err run(const errand *w, const klaw_remote_task_opts *opts, size_t opts_size,
                    klaw_blob **out, klaw_deadline deadline, klaw_error_info *info) {
    klaw_remote_task_opts o = {0};
    struct klawi_text t = {.grows = true};
    if (opts)
        memcpy(&o, opts, opts_size < sizeof o ? opts_size : sizeof o);
    if (out)
        *out = NULL;
    if (w->size && !w->data)
        return klawi_error(info, KLAW_INVALID, "bytes that are nowhere");
    if (o.connect_ns < 0 || o.retries < 0 || (o.cpus < 0 && o.cpus != KLAW_NONE) || o.cpus > 1e6)
        return klawi_error(info, KLAW_INVALID, "an option is out of its range");
    put_errand(&t, w, &o);
    klaw_err e = t.full ? klawi_error(info, KLAW_NOMEM, "no memory")
                        : klawi_desk_ask(&(klawi_ask){.verb = w->verb,
                                                      .text = t.p,
                                                      .data = w->data,
                                                      .size = w->size,
                                                      .out = out,
                                                      .deadline = deadline,
                                                      .info = info});
    klawi_free(t.p);
    return e;
}

klaw_err klaw_remote_task_sized(const char *library, const char *symbol, const void *arg,
                                size_t size, const klaw_remote_task_opts *opts, size_t opts_size,
                                klaw_blob **out, klaw_deadline deadline, klaw_error_info *info) {
    if (!library || !*library || !symbol || !*symbol)
        return klawi_error(info, KLAW_INVALID, "a library and a symbol are needed");
    const errand w = {KLAWI_VERB_TASK, library, symbol, NULL, arg, size};
    return run(&w, opts, opts_size, out, deadline, info);
}

/* An errand whose answer is an actor's key. */
static klaw_err reach(const errand *w, const klaw_remote_task_opts *opts, size_t opts_size,
                      klaw_remote_ref **out, klaw_deadline deadline, klaw_error_info *info) {
    klaw_blob *blob = NULL;
    klaw_remote_ref *ref = klawi_calloc(1, sizeof *ref);
    klaw_err e = ref ? run(w, opts, opts_size, &blob, deadline, info)
                     : klawi_error(info, KLAW_NOMEM, "no memory");
    if (!e && (!blob || klaw_blob_size(blob) != sizeof ref->key))
        e = klawi_error(info, KLAW_BACKEND, "the backend's answer can't be read");
    if (e) {
        klawi_free(ref);
    } else {
        /* Filled by the call that said OK. NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker) */
        memcpy(&ref->key, klaw_blob_data(blob), sizeof ref->key);
        *out = ref;
    }
    klaw_blob_unref(blob);
    return e;
}

klaw_err klaw_remote_actor_sized(const char *library, const char *symbol, const char *name,
                                 const void *arg, size_t size, const klaw_remote_task_opts *opts,
                                 size_t opts_size, klaw_remote_ref **out, klaw_deadline deadline,
                                 klaw_error_info *info) {
    if (!library || !*library || !symbol || !*symbol || !out || (name && !*name))
        return klawi_error(info, KLAW_INVALID, "a library and a symbol are needed");
    const errand w = {KLAWI_VERB_SPAWN, library, symbol, name, arg, size};
    return reach(&w, opts, opts_size, out, deadline, info);
}

klaw_err klaw_remote_find_sized(const char *name, const klaw_remote_task_opts *opts,
                                size_t opts_size, klaw_remote_ref **out, klaw_deadline deadline,
                                klaw_error_info *info) {
    if (!name || !*name || !out)
        return klawi_error(info, KLAW_INVALID, "a name is needed");
    const errand w = {KLAWI_VERB_FIND, NULL, NULL, name, NULL, 0};
    return reach(&w, opts, opts_size, out, deadline, info);
}

klaw_err klaw_remote_ask(klaw_remote_ref *actor, const void *message, size_t size,
                         klaw_blob **reply, klaw_deadline deadline, klaw_error_info *info) {
    if (reply)
        *reply = NULL;
    if (!actor || (size && !message))
        return klawi_error(info, KLAW_INVALID, "an actor and a message are needed");
    return klawi_desk_ask(&(klawi_ask){.verb = KLAWI_VERB_ASK,
                                       .key = actor->key,
                                       .data = message,
                                       .size = size,
                                       .out = reply,
                                       .deadline = deadline,
                                       .info = info});
}

klaw_err klaw_remote_stop(klaw_remote_ref *actor, klaw_deadline deadline, klaw_error_info *info) {
    if (!actor)
        return klawi_error(info, KLAW_INVALID, "an actor is needed");
    return klawi_desk_ask(&(klawi_ask){
        .verb = KLAWI_VERB_STOP, .key = actor->key, .deadline = deadline, .info = info});
}

void klaw_remote_unref(klaw_remote_ref *actor) {
    if (!actor)
        return;
    klawi_desk_tell(KLAWI_VERB_FORGET, actor->key, 0);
    klawi_free(actor);
}
