/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - what one instance of the module owns: its types and the Python names it needs.
 *
 * Everything hangs on the module object (multi-phase init, no static Python objects), so that each
 * interpreter has its own. Types are found from a type by PyType_GetModuleByDef and from a module by
 * PyModule_GetState. */
#ifndef KLAWPY_STATE_H
#define KLAWPY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

#include <klaw/klaw.h>

#define KLAWPY_HIDDEN __attribute__((visibility("hidden")))
#define KLAWPY_COLD __attribute__((noinline, cold))
#define KLAWPY_FREE_OPS 256
#define KLAWPY_FREE_OKS 64

/* X(name): an object or type the state holds a reference to. */
#define KLAWPY_REFS(X)                                                                       \
    X(PyTypeObject, ok_type)                                                                 \
    X(PyTypeObject, err_type)                                                                \
    X(PyTypeObject, some_type)                                                               \
    X(PyTypeObject, nothing_type)                                                            \
    X(PyObject, nothing)                                                                     \
    X(PyObject, ok_none) /* Ok(None), which every send is answered with */                   \
    X(PyObject, unwrap_error)                                                                \
    X(PyTypeObject, chan_type)                                                               \
    X(PyTypeObject, sender_type)                                                             \
    X(PyTypeObject, receiver_type)                                                           \
    X(PyTypeObject, local_sender_type)                                                       \
    X(PyTypeObject, local_receiver_type)                                                     \
    X(PyTypeObject, oneshot_sender_type)                                                     \
    X(PyTypeObject, oneshot_receiver_type)                                                   \
    X(PyTypeObject, broadcast_sender_type)                                                   \
    X(PyTypeObject, broadcast_receiver_type)                                                 \
    X(PyTypeObject, watch_sender_type)                                                       \
    X(PyTypeObject, watch_receiver_type)                                                     \
    X(PyTypeObject, native_sender_type)                                                      \
    X(PyTypeObject, native_receiver_type)                                                    \
    X(PyObject, check_u64) /* the validators of channels that C may share */                 \
    X(PyObject, check_bytes)                                                                 \
    X(PyTypeObject, store_type)                                                              \
    X(PyTypeObject, item_type)                                                               \
    X(PyTypeObject, hub_type)                                                                \
    X(PyTypeObject, remote_op_type)                                                          \
    X(PyTypeObject, op_type)                                                                 \
    X(PyTypeObject, inbox_type)                                                              \
    X(PyObject, errors)           /* klaw_core.runtime.errors, once it was needed */         \
    X(PyObject, get_running_loop) /* asyncio's, once it was needed */                        \
    X(PyObject, cancelled_error)  /* asyncio.CancelledError */                               \
    X(PyObject, inboxes)          /* loop to inbox, weak at both ends */                     \
    X(PyObject, label_of)         /* numbers the task that waits, for inspection; or NULL */ \
    X(PyObject, s_ok)                                                                        \
    X(PyObject, s_full)                                                                      \
    X(PyObject, s_closed)                                                                    \
    X(PyObject, s_empty)                                                                     \
    X(PyObject, s_to_exception)                                                              \
    X(PyObject, s_call_soon)                                                                 \
    X(PyObject, s_call_later)                                                                \
    X(PyObject, s_trio)                                                                      \
    X(PyObject, s_drain)                                                                     \
    X(PyObject, s_cancel)

typedef struct klawpy_op klawpy_op;
struct klawpy_remote_op;

typedef struct klawpy_state {
#define X(type, name) type *name;
    KLAWPY_REFS(X)
#undef X
    klawpy_op *free_ops; /* (GIL) operations to be used again */
    int free_count;
    struct klawpy_remote_op *free_remote; /* (GIL) the same of remote channels */
    int free_remote_count;
    PyObject *free_oks[KLAWPY_FREE_OKS]; /* (GIL) Ok objects to be used again */
    int free_ok_count;
} klawpy_state;

extern KLAWPY_HIDDEN PyModuleDef klawpy_module;

static inline klawpy_state *klawpy_state_of_module(PyObject *module) {
    return (klawpy_state *)PyModule_GetState(module);
}

/* The state of the module whose type (or base type) `type` is; never NULL for our own types. */
static inline klawpy_state *klawpy_state_of(PyTypeObject *type) {
    PyObject *module = PyType_GetModuleByDef(type, &klawpy_module);
    return module ? klawpy_state_of_module(module) : NULL;
}

/* Makes a live object again of one that lay in a free list, as PyObject_Init, which is a call. */
static inline void klawpy_revive(PyObject *o, PyTypeObject *type) {
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS) || defined(Py_GIL_DISABLED)
    PyObject_Init(o, type);
#else
    Py_SET_REFCNT(o, 1);
    Py_INCREF(type);
#endif
}

/* Makes a heap type of the module and adds it under its name. NULL with an exception set. */
KLAWPY_HIDDEN PyTypeObject *klawpy_add_type(PyObject *module, PyType_Spec *spec,
                                            PyTypeObject *base);

/* Raises the exception (or, klawpy_error_value, makes the struct) of klaw_core.runtime.errors with this
 * name; format and arguments as for Py_BuildValue, a tuple. raise always returns NULL. */
KLAWPY_HIDDEN PyObject *klawpy_raise(klawpy_state *st, const char *name, const char *format, ...);
KLAWPY_HIDDEN PyObject *klawpy_error_value(klawpy_state *st, const char *name, const char *format,
                                           ...);
/* Raises what fits a code that has nothing special to say. Always NULL. */
KLAWPY_HIDDEN PyObject *klawpy_raise_code(klawpy_state *st, klaw_err e);

/* One per .c: fills its part of the state. -1 with an exception set. */
KLAWPY_HIDDEN int klawpy_result_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_inbox_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_op_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_chan_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_kinds_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_native_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_inspect_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_config_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_supervision_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_store_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_remote_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_channel_log_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_broker_init(PyObject *module, klawpy_state *st);
KLAWPY_HIDDEN int klawpy_hub_init(PyObject *module, klawpy_state *st);
/* Empty the free lists. */
KLAWPY_HIDDEN void klawpy_op_free_all(klawpy_state *st);
KLAWPY_HIDDEN void klawpy_remote_free_all(klawpy_state *st);
KLAWPY_HIDDEN void klawpy_result_free_all(klawpy_state *st);

#endif
