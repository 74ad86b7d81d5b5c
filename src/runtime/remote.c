/* SPDX-License-Identifier: Apache-2.0 */
/* remote.c - named channels on Ray: the backend finds or makes the channel's actor, and carries the calls
 * of the hub that klaw_remote_open makes for it.
 *
 * Invariant: what the backend opened under a key is closed by exactly one CLOSE, from the transport's end
 * or, when the endpoints can't be made, from here. */
#include "klaw/remote.h"

#include <string.h>

#include "base/alloc.h"
#include "base/env.h"
#include "base/text.h"
#include "runtime/remote_desk.h"

#define NAME_MAX_BYTES 200

typedef struct carrier {
    uint64_t key;
} carrier;

static klaw_err carry(void *user, klaw_remote *r, const klaw_hub_call *call) {
    return klawi_desk_call(((carrier *)user)->key, r, call);
}

static void carried(void *user) {
    klawi_desk_tell(KLAWI_VERB_CLOSE, ((carrier *)user)->key, 0);
    klawi_free(user);
}

static const klaw_transport over_ray = {.call = carry, .end = carried};

/* --- what the backend reads --- */

static void member_string(struct klawi_text *t, bool *first, const char *name, const char *value) {
    if (!value)
        return;
    klawi_text_member(t, first, name);
    (void)klawi_text_json_string(t, value, strlen(value)); /* t->full tells */
}

static void member_where(struct klawi_text *t, bool *first, const klaw_remote_opts *o) {
    member_string(t, first, "address", o->address);
    member_string(t, first, "namespace", o->namespace_);
    klawi_text_member(t, first, "timeout");
    klawi_text_f64(t, (double)(o->timeout_ns ? o->timeout_ns : KLAW_S(60)) / 1e9);
}

static klaw_err finish_text(struct klawi_text *t) {
    klawi_text_put(t, "}", 2); /* with its NUL */
    return t->full ? KLAW_NOMEM : KLAW_OK;
}

static klaw_err check_opts(const klaw_remote_opts *o, const char *name, klaw_error_info *info) {
    if (info)
        memset(info, 0, sizeof *info);
    if (name && (!*name || strlen(name) > NAME_MAX_BYTES || !klawi_utf8_valid(name, strlen(name))))
        return klawi_error(info, KLAW_INVALID, "a channel's name has 1 to %d bytes of UTF-8",
                           NAME_MAX_BYTES);
    if (o->timeout_ns < 0 || o->linger_ns < 0 || o->ack > KLAW_REMOTE_ACK_BEFORE ||
        (o->capacity < 0 && o->capacity != KLAW_UNBOUNDED) || o->capacity > KLAW_CAPACITY_MAX)
        return klawi_error(info, KLAW_INVALID, "an option is out of its range");
    return KLAW_OK;
}

/* The backend keeps to the time-out by itself and says what was slow; this is the second line. */
static klaw_deadline patience(const klaw_remote_opts *o) {
    return klaw_after((o->timeout_ns ? o->timeout_ns : KLAW_S(60)) + KLAW_S(5));
}

static klaw_err copy_opts(klaw_remote_opts *o, const klaw_remote_opts *opts, size_t size) {
    memset(o, 0, sizeof *o);
    if (opts)
        memcpy(o, opts, size < sizeof *o ? size : sizeof *o);
    return KLAW_OK;
}

/* --- channels --- */

static klaw_err ask_open(const char *name, bool make, const klaw_remote_opts *o, klawi_opened *out,
                         klaw_error_info *info) {
    static const char *const acks[] = {"next", "explicit", "before"};
    struct klawi_text t = {.grows = true};
    klaw_blob *blob = NULL;
    bool first = true;
    klawi_text_put(&t, "{", 1);
    member_string(&t, &first, "name", name);
    klawi_text_member(&t, &first, "make");
    klawi_text_bool(&t, make);
    member_where(&t, &first, o);
    if (make) {
        klawi_text_member(&t, &first, "capacity");
        if (o->capacity == KLAW_UNBOUNDED)
            klawi_text_str(&t, "null");
        else
            klawi_text_i64(&t, o->capacity ? o->capacity : KLAW_CAPACITY_DEFAULT);
        member_string(&t, &first, "ack", acks[o->ack]);
        klawi_text_member(&t, &first, "durable");
        klawi_text_bool(&t, o->durable);
    }
    klaw_err e = finish_text(&t);
    if (!e)
        e = klawi_desk_ask(&(klawi_ask){.verb = KLAWI_VERB_OPEN,
                                        .text = t.p,
                                        .out = &blob,
                                        .deadline = patience(o),
                                        .info = info});
    klawi_free(t.p);
    if (e)
        return e;
    e = blob && klaw_blob_size(blob) == sizeof *out ? KLAW_OK : KLAW_BACKEND;
    if (e)
        klawi_error(info, e, "the backend's answer can't be read");
    else
        memcpy(out, klaw_blob_data(blob), sizeof *out);
    klaw_blob_unref(blob);
    return e;
}

static klaw_err open_channel(const char *name, bool make, const klaw_type *type,
                             const klaw_remote_opts *opts, size_t opts_size, klaw_sender **tx,
                             klaw_receiver **rx, klaw_error_info *info) {
    klaw_remote_opts o;
    klawi_opened opened;
    copy_opts(&o, opts, opts_size);
    if (!name || !type || (!tx && !rx))
        return klawi_error(info, KLAW_INVALID, "a name, a type and a side are needed");
    if (!type->encode || !type->decode)
        return klawi_error(info, KLAW_TYPE,
                           "elements of type %s stay in the process: no encode, "
                           "no decode",
                           type->name ? type->name : "?");
    klaw_err e = check_opts(&o, name, info);
    if (e)
        return e;
    carrier *c = klawi_calloc(1, sizeof *c);
    if (!c)
        return klawi_error(info, KLAW_NOMEM, "no memory");
    e = ask_open(name, make, &o, &opened, info);
    if (e) {
        klawi_free(c);
        return e;
    }
    c->key = opened.key;
    klaw_transport_opts how = {.name = name,
                               .hub = {.ack = (klaw_remote_ack)opened.ack, .node = "c"},
                               .packed = o.packed,
                               .ahead = o.ahead,
                               .linger_ns = o.linger_ns};
    memcpy(how.hub.channel, opened.channel, sizeof how.hub.channel);
    e = klaw_remote_open(type, &over_ray, c, &how, tx, rx);
    if (!e)
        return KLAW_OK;
    carried(c);
    return klawi_error(info, e, "the endpoints can't be made: %s", klaw_err_text(e));
}

klaw_err klaw_remote_channel_sized(const char *name, const klaw_type *type,
                                   const klaw_remote_opts *opts, size_t opts_size, klaw_sender **tx,
                                   klaw_receiver **rx, klaw_error_info *info) {
    return open_channel(name, true, type, opts, opts_size, tx, rx, info);
}

klaw_err klaw_remote_get_sized(const char *name, const klaw_type *type,
                               const klaw_remote_opts *opts, size_t opts_size, klaw_sender **tx,
                               klaw_receiver **rx, klaw_error_info *info) {
    return open_channel(name, false, type, opts, opts_size, tx, rx, info);
}

/* A question about a name, or about all names. */
static klaw_err ask_name(enum klawi_verb verb, const char *name, const klaw_remote_opts *o,
                         klaw_blob **out, klaw_error_info *info) {
    struct klawi_text t = {.grows = true};
    bool first = true;
    klawi_text_put(&t, "{", 1);
    member_string(&t, &first, "name", name);
    member_where(&t, &first, o);
    klaw_err e = finish_text(&t);
    if (!e)
        e = klawi_desk_ask(&(klawi_ask){
            .verb = verb, .text = t.p, .out = out, .deadline = patience(o), .info = info});
    klawi_free(t.p);
    return e;
}

klaw_err klaw_remote_delete_sized(const char *name, const klaw_remote_opts *opts, size_t opts_size,
                                  klaw_error_info *info) {
    klaw_remote_opts o;
    copy_opts(&o, opts, opts_size);
    if (!name)
        return klawi_error(info, KLAW_INVALID, "a name is needed");
    klaw_err e = check_opts(&o, name, info);
    return e ? e : ask_name(KLAWI_VERB_DELETE, name, &o, NULL, info);
}

klaw_err klaw_remote_list_sized(const klaw_remote_opts *opts, size_t opts_size,
                                bool (*visit)(void *user, const char *name), void *user,
                                klaw_error_info *info) {
    klaw_remote_opts o;
    klaw_blob *names = NULL;
    copy_opts(&o, opts, opts_size);
    if (!visit)
        return klawi_error(info, KLAW_INVALID, "somebody to tell the names is needed");
    klaw_err e = check_opts(&o, NULL, info);
    if (!e)
        e = ask_name(KLAWI_VERB_LIST, NULL, &o, &names, info);
    if (e || !names)
        return e;
    const char *at = klaw_blob_data(names), *end = at + klaw_blob_size(names);
    while (at < end && memchr(at, 0, (size_t)(end - at)) && visit(user, at))
        at += strlen(at) + 1;
    klaw_blob_unref(names);
    return KLAW_OK;
}
