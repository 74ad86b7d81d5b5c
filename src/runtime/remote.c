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

/* From where on PEEK looks. */
typedef struct span {
    const klaw_remote_mark *mark;
    size_t most;
} span;

static void member_span(struct klawi_text *t, bool *first, const span *s) {
    klawi_text_member(t, first, "boot");
    klawi_text_u64(t, s->mark->boot);
    klawi_text_member(t, first, "after");
    if (s->mark->place == KLAW_REMOTE_END)
        klawi_text_str(t, "null");
    else
        klawi_text_u64(t, s->mark->place);
    klawi_text_member(t, first, "most");
    klawi_text_u64(t, s->most < INT32_MAX ? s->most : INT32_MAX);
}

/* A question about a name, or about all names. s: of PEEK. */
static klaw_err ask_name(enum klawi_verb verb, const char *name, const klaw_remote_opts *o,
                         const span *s, klaw_blob **out, klaw_error_info *info) {
    struct klawi_text t = {.grows = true};
    bool first = true;
    klawi_text_put(&t, "{", 1);
    member_string(&t, &first, "name", name);
    member_where(&t, &first, o);
    if (s)
        member_span(&t, &first, s);
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
    return e ? e : ask_name(KLAWI_VERB_DELETE, name, &o, NULL, NULL, info);
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
        e = ask_name(KLAWI_VERB_LIST, NULL, &o, NULL, &names, info);
    if (e || !names)
        return e;
    const char *at = klaw_blob_data(names), *end = at + klaw_blob_size(names);
    while (at < end && memchr(at, 0, (size_t)(end - at)) && visit(user, at))
        at += strlen(at) + 1;
    klaw_blob_unref(names);
    return KLAW_OK;
}

/* --- looking in --- */

static klaw_err unreadable(klaw_error_info *info) {
    return klawi_error(info, KLAW_BACKEND, "the backend's answer can't be read");
}

klaw_err klaw_remote_stats_sized(const char *name, const klaw_remote_opts *opts, size_t opts_size,
                                 klaw_remote_counts *out, size_t out_size, klaw_error_info *info) {
    klaw_remote_opts o;
    klaw_blob *blob = NULL;
    klawi_looked l;
    copy_opts(&o, opts, opts_size);
    if (!name || !out)
        return klawi_error(info, KLAW_INVALID, "a name and room for the answer are needed");
    klaw_err e = check_opts(&o, name, info);
    if (!e)
        e = ask_name(KLAWI_VERB_STATS, name, &o, NULL, &blob, info);
    if (e)
        return e;
    bool whole = blob && klaw_blob_size(blob) == sizeof l;
    if (whole)
        memcpy(&l, klaw_blob_data(blob), sizeof l);
    klaw_blob_unref(blob);
    if (!whole)
        return unreadable(info);
    const klaw_remote_counts c = {.kind = (klaw_remote_kind)l.kind,
                                  .ack = (klaw_remote_ack)l.ack,
                                  .durable = l.durable != 0,
                                  .senders_closed = l.senders_closed != 0,
                                  .receivers_closed = l.receivers_closed != 0,
                                  .gathering = l.gathering != 0,
                                  .capacity = l.capacity < 0 ? KLAW_UNBOUNDED : l.capacity,
                                  .created_at = l.created_at,
                                  .senders = l.senders,
                                  .receivers = l.receivers,
                                  .queued = l.queued,
                                  .leased = l.leased,
                                  .high_watermark = l.high_watermark,
                                  .total_sent = l.total_sent,
                                  .total_received = l.total_received,
                                  .redelivered = l.redelivered,
                                  .duplicates = l.duplicates,
                                  .expired = l.expired,
                                  .lost = l.lost,
                                  .missed = l.missed,
                                  .clients = l.clients,
                                  .parked = l.parked,
                                  .bytes = l.bytes,
                                  .boot = l.boot,
                                  .pid = l.pid};
    memcpy(out, &c, out_size < sizeof c ? out_size : sizeof c);
    return KLAW_OK;
}

/* The next item at *at; false: there is none that is whole. */
static bool take_item(const unsigned char **at, const unsigned char *end, klaw_remote_item *out) {
    klawi_peeked p;
    if ((size_t)(end - *at) < sizeof p)
        return false;
    memcpy(&p, *at, sizeof p);
    *at += sizeof p;
    if ((size_t)(end - *at) < p.size)
        return false;
    *out = (klaw_remote_item){.data = *at,
                              .size = (size_t)p.size,
                              .sent_at = p.sent_at,
                              .seq = p.seq,
                              .flags = p.flags,
                              .codec = (klaw_remote_codec)p.codec,
                              .place = p.place};
    memcpy(out->client, p.client, sizeof out->client);
    *at += p.size;
    return true;
}

klaw_err klaw_remote_peek_sized(const char *name, klaw_remote_mark *mark, size_t most,
                                const klaw_remote_opts *opts, size_t opts_size,
                                bool (*visit)(void *user, const klaw_remote_item *item), void *user,
                                klaw_error_info *info) {
    klaw_remote_opts o;
    klaw_blob *blob = NULL;
    klaw_remote_item item;
    uint64_t boot;
    copy_opts(&o, opts, opts_size);
    if (!name || !mark || !most || !visit)
        return klawi_error(info, KLAW_INVALID,
                           "a name, a mark, a number and somebody to tell are needed");
    klaw_err e = check_opts(&o, name, info);
    if (!e)
        e = ask_name(KLAWI_VERB_PEEK, name, &o, &(span){mark, most}, &blob, info);
    if (e)
        return e;
    const unsigned char *at = blob ? klaw_blob_data(blob) : NULL, *end = NULL;
    if (!blob || klaw_blob_size(blob) < sizeof boot) {
        klaw_blob_unref(blob);
        return unreadable(info);
    }
    end = at + klaw_blob_size(blob);
    memcpy(&boot, at, sizeof boot);
    at += sizeof boot;
    /* The end, or places that another boot counted, say nothing about what comes. */
    if (mark->place == KLAW_REMOTE_END || mark->boot != boot)
        *mark = (klaw_remote_mark){
            boot, mark->boot == 0 && mark->place != KLAW_REMOTE_END ? mark->place : 0};
    while (at < end) {
        if (!take_item(&at, end, &item)) {
            e = unreadable(info);
            break;
        }
        mark->place = item.place;
        if (!visit(user, &item))
            break;
    }
    klaw_blob_unref(blob);
    return e;
}
