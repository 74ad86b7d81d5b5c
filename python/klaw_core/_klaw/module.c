/* SPDX-License-Identifier: Apache-2.0 */
/* module.c - the extension module klaw_core._klaw: multi-phase init, state per interpreter, errors.
 *
 * The order of the init functions is the order of use: results first, everything else answers with
 * them. The error classes are Python's (klaw_core.runtime.errors) and imported when the first one is
 * needed. */
#include "state.h"

PyTypeObject *klawpy_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base) {
    PyTypeObject *t = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, (PyObject *)base);
    if (t && PyModule_AddType(module, t) < 0)
        Py_CLEAR(t);
    return t;
}

/* --- errors --- */
static PyObject *make_error(klawpy_state *st, const char *name, const char *format, va_list args) {
    if (!st->errors && !(st->errors = PyImport_ImportModule("klaw_core.runtime.errors")))
        return NULL;
    PyObject *type = PyObject_GetAttrString(st->errors, name), *error = NULL;
    PyObject *tuple = type ? Py_VaBuildValue(format, args) : NULL;
    if (tuple)
        error = PyObject_Call(type, tuple, NULL);
    Py_XDECREF(tuple);
    Py_XDECREF(type);
    return error;
}

PyObject *klawpy_error_value(klawpy_state *st, const char *name, const char *format, ...) {
    va_list args;
    va_start(args, format);
    PyObject *error = make_error(st, name, format, args);
    va_end(args);
    return error;
}

PyObject *klawpy_raise(klawpy_state *st, const char *name, const char *format, ...) {
    va_list args;
    va_start(args, format);
    PyObject *error = make_error(st, name, format, args);
    va_end(args);
    if (error) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

PyObject *klawpy_raise_code(klawpy_state *st, klaw_err e) {
    switch (e) {
    case KLAW_NOMEM: return PyErr_NoMemory();
    case KLAW_CLOSED: return klawpy_raise(st, "ChannelClosedError", "()");
    case KLAW_INVALID: PyErr_SetString(PyExc_ValueError, klaw_err_text(e)); return NULL;
    case KLAW_SYSTEM: PyErr_SetString(PyExc_OSError, klaw_err_text(e)); return NULL;
    case KLAW_STOPPED:
        PyErr_SetString(
            PyExc_RuntimeError,
            "klaw does not run in the child of a fork: start processes by multiprocessing's "
            "spawn or forkserver, or by subprocess (KLAW_STOPPED)");
        return NULL;
    default:
        PyErr_Format(PyExc_RuntimeError, "%s (%s)", klaw_err_text(e), klaw_err_name(e));
        return NULL;
    }
}

/* --- the module --- */
static int names(klawpy_state *st) {
    return (st->s_to_exception = PyUnicode_InternFromString("to_exception")) &&
                   (st->s_call_soon = PyUnicode_InternFromString("call_soon")) &&
                   (st->s_call_later = PyUnicode_InternFromString("call_later")) &&
                   (st->s_trio = PyUnicode_InternFromString("trio")) &&
                   (st->s_drain = PyUnicode_InternFromString("_drain")) &&
                   (st->s_cancel = PyUnicode_InternFromString("cancel"))
               ? 0
               : -1;
}

static int exec(PyObject *module) {
    klawpy_state *st = klawpy_state_of_module(module);
    if (names(st) < 0 || klawpy_result_init(module, st) < 0 || klawpy_inbox_init(module, st) < 0 ||
        klawpy_op_init(module, st) < 0 || klawpy_chan_init(module, st) < 0 ||
        klawpy_kinds_init(module, st) < 0 || klawpy_native_init(module, st) < 0 ||
        klawpy_config_init(module, st) < 0 || klawpy_inspect_init(module, st) < 0 ||
        klawpy_supervision_init(module, st) < 0 || klawpy_store_init(module, st) < 0 ||
        klawpy_remote_init(module, st) < 0 || klawpy_channel_log_init(module, st) < 0 ||
        klawpy_broker_init(module, st) < 0 || klawpy_hub_init(module, st) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "libklaw_version", klaw_version());
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    klawpy_state *st = klawpy_state_of_module(module);
#define X(type, name) Py_VISIT(st->name);
    KLAWPY_REFS(X)
#undef X
    return 0;
}

static int clear(PyObject *module) {
    klawpy_state *st = klawpy_state_of_module(module);
    klawpy_op_free_all(st);
    klawpy_remote_free_all(st);
    klawpy_result_free_all(st);
#define X(type, name) Py_CLEAR(st->name);
    KLAWPY_REFS(X)
#undef X
    return 0;
}

static void release(void *module) {
    clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

PyModuleDef klawpy_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "klaw_core._klaw",
    .m_doc = "The C side of klaw_core: results, channels and what waits on them.",
    .m_size = sizeof(klawpy_state),
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};

PyMODINIT_FUNC PyInit__klaw(void);
PyMODINIT_FUNC PyInit__klaw(void) {
    return PyModuleDef_Init(&klawpy_module);
}
