/* SPDX-License-Identifier: Apache-2.0 */
/* supervisor_spec.c - definitions of children: copies of what the caller described, counted.
 *
 * A definition outlives restarts and, for a nested supervisor, carries those of its children.
 *
 * Invariants:
 *   D1  everything a definition points to is its own, but arg, behavior, drop and what the caller
 *       promised to keep (hooks' user, a checkpointer).
 *   D2  arg is dropped at most once, by the last reference, and only after adoption: who asked to
 *       have a child and was refused keeps it. */
#include <stdio.h>
#include <string.h>

#include "actor/supervisor.h"
#include "base/alloc.h"

klaw_err klawi_child_name(const char *name, const char *fallback, char out[KLAWI_CHILD_NAME]) {
    if (!name)
        name = fallback;
    size_t n = strlen(name);
    if (n == 0)
        return KLAW_INVALID;
    if (n > KLAW_CHILD_NAME_MAX)
        return KLAW_LIMIT;
    memcpy(out, name, n + 1);
    return KLAW_OK;
}

klaw_err klawi_strings_copy(const char *const *list, char ***out) {
    size_t n = 0, bytes = 0;
    *out = NULL;
    if (!list)
        return KLAW_OK;
    for (; list[n]; n++)
        bytes += strlen(list[n]) + 1;
    char **copy = klawi_alloc((n + 1) * sizeof *copy + bytes);
    if (!copy)
        return KLAW_NOMEM;
    char *at = (char *)(copy + n + 1);
    for (size_t i = 0; i < n; i++) {
        size_t size = strlen(list[i]) + 1;
        copy[i] = memcpy(at, list[i], size);
        at += size;
    }
    copy[n] = NULL;
    *out = copy;
    return KLAW_OK;
}

static klaw_err text_copy(const char *text, char **out) {
    *out = NULL;
    if (!text)
        return KLAW_OK;
    size_t size = strlen(text) + 1;
    if ((*out = klawi_alloc(size)) == NULL)
        return KLAW_NOMEM;
    memcpy(*out, text, size);
    return KLAW_OK;
}

void klawi_defs_free(klawi_def **defs, size_t n) {
    for (size_t i = 0; defs && i < n; i++)
        if (defs[i])
            klawi_def_unref(defs[i]);
    klawi_free(defs);
}

klawi_def *klawi_def_ref(klawi_def *d) {
    atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
    return d;
}

void klawi_def_unref(klawi_def *d) {
    /* acq_rel: the last one sees what the others did. */
    if (atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1)
        return;
    klawi_defs_free(d->tree.children, d->tree.n);
    if (d->drop && !d->is_template && atomic_load_explicit(&d->adopted, memory_order_relaxed))
        d->drop(d->arg); /* D2 */
    klawi_free(d->argv);
    klawi_free(d->env);
    klawi_free(d->cwd);
    klawi_free(d->key);
    klawi_free(d);
}

void klawi_def_adopt(klawi_def *d) {
    atomic_store_explicit(&d->adopted, true, memory_order_relaxed);
    for (size_t i = 0; i < d->tree.n; i++)
        klawi_def_adopt(d->tree.children[i]);
}

/* --- copies by kind --- */
static klaw_err copy_fiber(klawi_def *d, const klaw_child_spec *spec) {
    if (!spec->run)
        return KLAW_INVALID;
    d->run = spec->run;
    d->init = spec->init;
    if (spec->fiber)
        d->fiber = *spec->fiber;
    snprintf(d->short_name, sizeof d->short_name, "%.*s", KLAWI_NAME_MAX - 1,
             d->fiber.name ? d->fiber.name : d->name);
    d->fiber.name = d->short_name;
    return KLAW_OK;
}

static klaw_err copy_actor(klawi_def *d, const klaw_child_spec *spec) {
    if (!spec->behavior)
        return KLAW_INVALID;
    d->behavior = spec->behavior;
    if (spec->actor)
        d->actor = *spec->actor;
    snprintf(d->short_name, sizeof d->short_name, "%.*s", KLAWI_NAME_MAX - 1,
             d->actor.name ? d->actor.name : d->name);
    d->actor.name = d->short_name;
    d->actor.restart = KLAW_RESTART_NEVER;
    d->actor.release = NULL;
    klaw_err e = text_copy(d->actor.checkpoint_key, &d->key);
    d->actor.checkpoint_key = d->key;
    return e;
}

static klaw_err copy_process(klawi_def *d, const klaw_child_spec *spec) {
    klaw_err e;
    if (!spec->process || !spec->process->argv || !spec->process->argv[0])
        return KLAW_INVALID;
    d->process = *spec->process;
    if ((e = klawi_strings_copy(spec->process->argv, &d->argv)) != KLAW_OK ||
        (e = klawi_strings_copy(spec->process->env, &d->env)) != KLAW_OK ||
        (e = text_copy(spec->process->cwd, &d->cwd)) != KLAW_OK)
        return e;
    d->process.argv = (const char *const *)(uintptr_t)d->argv;
    d->process.env = (const char *const *)(uintptr_t)d->env;
    d->process.cwd = d->cwd;
    return KLAW_OK;
}

static klaw_err copy_tree(klawi_def *d, const klaw_child_spec *spec, size_t size, uint32_t depth) {
    if (depth + 1 >= KLAWI_TREE_DEPTH)
        return KLAW_LIMIT;
    if (!spec->children && spec->n_children)
        return KLAW_INVALID;
    if (spec->supervisor)
        d->tree.opts = *spec->supervisor;
    d->tree.opts.name = d->name;
    bool dynamic = d->tree.opts.policy.strategy == KLAW_DYNAMIC;
    if (dynamic && spec->n_children != 1)
        return KLAW_INVALID;
    klaw_err e = klawi_defs_new(spec->children, size, spec->n_children, depth + 1, dynamic,
                                &d->tree.children);
    if (e)
        return e;
    d->tree.n = spec->n_children;
    d->depth = 1;
    for (size_t i = 0; i < d->tree.n; i++)
        if (d->tree.children[i]->depth >= d->depth)
            d->depth = d->tree.children[i]->depth + 1;
    return KLAW_OK;
}

klaw_err klawi_def_new(const klaw_child_spec *given, size_t size, uint32_t depth, bool template_,
                       klawi_def **out) {
    klaw_child_spec spec = {0};
    memcpy(&spec, given, size < sizeof spec ? size : sizeof spec);
    klawi_def *d = klawi_calloc(1, sizeof *d);
    if (!d)
        return KLAW_NOMEM;
    atomic_init(&d->refs, 1);
    d->kind = spec.kind;
    d->arg = spec.arg;
    d->policy.restart = spec.restart;
    d->policy.significant = spec.significant;
    d->policy.shutdown = spec.shutdown                        ? spec.shutdown
                         : spec.kind == KLAW_CHILD_SUPERVISOR ? KLAW_SHUTDOWN_FOREVER
                                                              : 0;
    klaw_err e =
        !spec.name && !template_ ? KLAW_INVALID : klawi_child_name(spec.name, "child", d->name);
    if (!e)
        switch (spec.kind) {
        case KLAW_CHILD_FIBER: e = copy_fiber(d, &spec); break;
        case KLAW_CHILD_ACTOR: e = copy_actor(d, &spec); break;
        case KLAW_CHILD_SUPERVISOR: e = copy_tree(d, &spec, size, depth); break;
        case KLAW_CHILD_PROCESS: e = copy_process(d, &spec); break;
        default: e = KLAW_INVALID;
        }
    if (e) {
        klawi_def_unref(d);
        return e;
    }
    d->drop = spec.drop;
    d->is_template = template_;
    *out = d;
    return KLAW_OK;
}

klaw_err klawi_defs_new(const klaw_child_spec *specs, size_t size, size_t n, uint32_t depth,
                        bool template_, klawi_def ***out) {
    *out = NULL;
    klawi_def **defs = klawi_calloc(n ? n : 1, sizeof *defs);
    if (!defs)
        return KLAW_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const void *at = (const char *)specs + i * size;
        klaw_err e = klawi_def_new(at, size, depth, template_, &defs[i]);
        if (e) {
            klawi_defs_free(defs, n);
            return e;
        }
    }
    *out = defs;
    return KLAW_OK;
}
