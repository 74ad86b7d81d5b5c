/* SPDX-License-Identifier: Apache-2.0 */
/* python.h - channels handed between C extension modules and the Python package klaw_core.
 *
 * What travels is a capsule that owns one endpoint of a channel of klaw_u64 or klaw_bytes, of any kind
 * but one_to_one. A capsule is used once: whoever takes the endpoint out owns it from then on. One that
 * is collected untaken closes its endpoint.
 *
 * In Python klaw_core.runtime.channels.from_capsule(capsule) gives an endpoint with the usual awaitables;
 * the elements are int (klaw_u64) and bytes (klaw_bytes). An endpoint's capsule() makes a capsule of a
 * further handle on the same side, for C to take.
 *
 * Include <Python.h> before this header: the functions are there only then. They need the GIL. Both
 * sides have to use one libklaw (link the shared library under its plain soname); a capsule of another
 * one is refused. */
#ifndef KLAW_PYTHON_H
#define KLAW_PYTHON_H

#include <string.h>

#include "klaw/channel.h"

KLAW_BEGIN

/* A capsule's name says what it owns: a klaw_sender * or a klaw_receiver *, and the type of the elements.
 * Its context is the address of that klaw_type: one libklaw has one. */
#define KLAW_CAPSULE_SENDER_U64 "klaw.sender.u64"
/* See KLAW_CAPSULE_SENDER_U64. */
#define KLAW_CAPSULE_SENDER_BYTES "klaw.sender.bytes"
/* See KLAW_CAPSULE_SENDER_U64. */
#define KLAW_CAPSULE_RECEIVER_U64 "klaw.receiver.u64"
/* See KLAW_CAPSULE_SENDER_U64. */
#define KLAW_CAPSULE_RECEIVER_BYTES "klaw.receiver.bytes"
/* The name afterwards: it owns nothing any more. */
#define KLAW_CAPSULE_TAKEN "klaw.taken"

#ifdef Py_PYTHON_H

/* Private: the destructor of senders' capsules. */
static inline void klaw_python_drop_sender_(PyObject *capsule) {
    klaw_sender_unref((klaw_sender *)PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)));
}

/* Private: the destructor of receivers' capsules. */
static inline void klaw_python_drop_receiver_(PyObject *capsule) {
    klaw_receiver_unref((klaw_receiver *)PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)));
}

/* Private: a capsule of `endpoint`, which stays the caller's when this fails. */
static inline PyObject *klaw_python_wrap_(void *endpoint, const klaw_type *type, const char *u64,
                                          const char *bytes, const char *kind,
                                          PyCapsule_Destructor drop) {
    const char *name = type == &klaw_u64 ? u64 : type == &klaw_bytes ? bytes : NULL;
    if (!name || strcmp(kind, "one_to_one") == 0) {
        PyErr_Format(PyExc_TypeError, "capsules carry channels of u64 and bytes, not %s of %s",
                     kind, type ? type->name : "nothing");
        return NULL;
    }
    PyObject *capsule = PyCapsule_New(endpoint, name, NULL);
    if (!capsule)
        return NULL;
    if (PyCapsule_SetContext(capsule, (void *)(uintptr_t)type) < 0 ||
        PyCapsule_SetDestructor(capsule, drop) < 0) {
        Py_DECREF(capsule);
        return NULL;
    }
    return capsule;
}

/* Private: what the capsule owns, taken out of it. */
static inline void *klaw_python_take_(PyObject *capsule, const klaw_type *type, const char *name) {
    if (!PyCapsule_IsValid(capsule, name)) {
        const char *got = PyCapsule_CheckExact(capsule) ? PyCapsule_GetName(capsule) : NULL;
        PyErr_Format(PyExc_TypeError, "wanted a capsule '%s', not %s%.100s%s", name, got ? "'" : "",
                     got ? got : Py_TYPE(capsule)->tp_name, got ? "'" : "");
        return NULL;
    }
    if (PyCapsule_GetContext(capsule) != (const void *)type) {
        PyErr_Format(PyExc_TypeError, "the capsule '%s' comes from another libklaw", name);
        return NULL;
    }
    void *endpoint = PyCapsule_GetPointer(capsule, name);
    if (!endpoint || PyCapsule_SetDestructor(capsule, NULL) < 0 ||
        PyCapsule_SetName(capsule, KLAW_CAPSULE_TAKEN) < 0)
        return NULL;
    return endpoint;
}

/* A capsule that owns the sender, for from_capsule or a function of another module. A new reference. NULL
 * with an exception set: the sender is still the caller's. TypeError: its elements are not klaw_u64 or
 * klaw_bytes, or the channel is one_to_one. Nobody else may use the handle afterwards; clone it to keep one. */
static inline PyObject *klaw_python_from_sender(klaw_sender *tx) {
    klaw_channel_stats s;
    bool ok = klaw_sender_stats(tx, &s) == KLAW_OK;
    return klaw_python_wrap_(tx, ok ? klaw_sender_type(tx) : NULL, KLAW_CAPSULE_SENDER_U64,
                             KLAW_CAPSULE_SENDER_BYTES, ok ? s.kind : "nothing",
                             klaw_python_drop_sender_);
}

/* The same of a receiver. */
static inline PyObject *klaw_python_from_receiver(klaw_receiver *rx) {
    klaw_channel_stats s;
    bool ok = klaw_receiver_stats(rx, &s) == KLAW_OK;
    return klaw_python_wrap_(rx, ok ? klaw_receiver_type(rx) : NULL, KLAW_CAPSULE_RECEIVER_U64,
                             KLAW_CAPSULE_RECEIVER_BYTES, ok ? s.kind : "nothing",
                             klaw_python_drop_receiver_);
}

/* Takes the sender out of a capsule; it is the caller's, to be unreferenced (from anywhere, without the
 * GIL). type: &klaw_u64 or &klaw_bytes. NULL with TypeError set: not a capsule of such a sender, taken
 * already, or from another libklaw; the capsule keeps what it has. */
static inline klaw_sender *klaw_python_take_sender(PyObject *capsule, const klaw_type *type) {
    return (klaw_sender *)klaw_python_take_(
        capsule, type, type == &klaw_u64 ? KLAW_CAPSULE_SENDER_U64 : KLAW_CAPSULE_SENDER_BYTES);
}

/* The same of a receiver. */
static inline klaw_receiver *klaw_python_take_receiver(PyObject *capsule, const klaw_type *type) {
    return (klaw_receiver *)klaw_python_take_(
        capsule, type, type == &klaw_u64 ? KLAW_CAPSULE_RECEIVER_U64 : KLAW_CAPSULE_RECEIVER_BYTES);
}

#endif

KLAW_END

#endif
