/* SPDX-License-Identifier: Apache-2.0 */
/* config.c - configuration, detection and backoff of libklaw, for the Python files that wrap them.
 *
 * Structs become dictionaries here and dataclasses there. Errors carry the library's message, which
 * lists the right values. */
#include "state.h"

static PyObject *raise_info(klaw_err e, const klaw_error_info *info) {
    PyObject *type = e == KLAW_NOMEM                        ? PyExc_MemoryError
                     : e == KLAW_INVALID || e == KLAW_LIMIT ? PyExc_ValueError
                                                            : PyExc_RuntimeError;
    PyErr_SetString(type, info->message[0] ? info->message : klaw_err_text(e));
    return NULL;
}

/* The items of a dictionary of strings as options that borrow its texts; freed by PyMem_Free. */
static klaw_option *options_of(PyObject *dict, size_t *n) {
    Py_ssize_t at = 0;
    PyObject *key, *value;
    *n = 0;
    klaw_option *o = PyMem_Calloc((size_t)PyDict_GET_SIZE(dict) + 1, sizeof *o);
    if (!o) {
        PyErr_NoMemory();
        return NULL;
    }
    while (PyDict_Next(dict, &at, &key, &value)) {
        o[*n].key = PyUnicode_AsUTF8(key);
        o[*n].value = o[*n].key ? PyUnicode_AsUTF8(value) : NULL;
        if (!o[(*n)++].value) {
            PyMem_Free(o);
            return NULL;
        }
    }
    return o;
}

static PyObject *config_init(PyObject *module, PyObject *args) {
    klaw_init_opts o = {0};
    klaw_error_info info = {0};
    PyObject *dict;
    unsigned concurrency = 0;
    (void)module;
    int inspect = 0;
    if (!PyArg_ParseTuple(args, "zIzzO!|p", &o.backend, &concurrency, &o.log_level,
                          &o.checkpoint_path, &PyDict_Type, &dict, &inspect))
        return NULL;
    o.inspect = inspect;
    o.concurrency = concurrency;
    klaw_option *options = options_of(dict, &o.n_options);
    if (!options)
        return NULL;
    o.options = options;
    klaw_err e = klaw_init(&o, &info);
    PyMem_Free(options);
    if (e)
        return raise_info(e, &info);
    Py_RETURN_NONE;
}

static PyObject *config_get(PyObject *module, PyObject *unused) {
    klaw_config *c = PyMem_Calloc(1, sizeof *c);
    klaw_error_info info = {0};
    PyObject *r = NULL;
    (void)module;
    (void)unused;
    if (!c)
        return PyErr_NoMemory();
    klaw_err e = klaw_config_get(c, &info);
    if (e)
        raise_info(e, &info);
    else
        r = Py_BuildValue(
            "{s:s,s:I,s:s,s:s,s:O,s:{s:s,s:s,s:s,s:s,s:s},s:O,s:{s:I,s:I,s:I,s:I,s:I,s:K,s:K}}",
            "backend", c->backend, "concurrency", (unsigned)c->concurrency, "log_level",
            klaw_log_level_name(c->log_level), "checkpoint_path", c->checkpoint_path, "initialized",
            c->initialized ? Py_True : Py_False, "sources", "backend",
            klaw_source_name(c->backend_source), "concurrency",
            klaw_source_name(c->concurrency_source), "log_level",
            klaw_source_name(c->log_level_source), "checkpoint_path",
            klaw_source_name(c->checkpoint_path_source), "inspect",
            klaw_source_name(c->inspect_source), "inspect", c->inspect ? Py_True : Py_False,
            "machine", "online", (unsigned)c->machine.online, "allowed",
            (unsigned)c->machine.allowed, "cores", (unsigned)c->machine.cores, "quota_milli",
            (unsigned)c->machine.quota_milli, "usable", (unsigned)c->machine.usable, "memory",
            (unsigned long long)c->machine.memory, "memory_limit",
            (unsigned long long)c->machine.memory_limit);
    PyMem_Free(c);
    return r;
}

static PyObject *config_forget(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    klaw_deinit();
    klaw_log_set_level(KLAW_LEVEL_OFF);
    Py_RETURN_NONE;
}

/* Seconds to ns; negative and NaN: KLAW_NONE. */
static int64_t ns_of(double seconds) {
    return !(seconds >= 0) ? KLAW_NONE : seconds > 9e9 ? INT64_MAX : (int64_t)(seconds * 1e9);
}

static PyObject *backoff_delay(PyObject *module, PyObject *args) {
    int kind, jitter;
    unsigned attempt;
    unsigned long long chance;
    double base, max_delay, factor;
    (void)module;
    if (!PyArg_ParseTuple(args, "iidddIK", &kind, &jitter, &base, &max_delay, &factor, &attempt,
                          &chance))
        return NULL;
    klaw_backoff b = {.kind = (klaw_backoff_kind)kind,
                      .jitter = (klaw_jitter)jitter,
                      .base = ns_of(base),
                      .max_delay = ns_of(max_delay),
                      .factor = factor};
    if (b.base == 0) /* zero is the library's default; here it says zero */
        b.base = KLAW_NONE;
    if (klaw_backoff_check(&b) != KLAW_OK) {
        PyErr_SetString(PyExc_ValueError,
                        "a backoff needs times of 0 or more and a factor of 1 or more");
        return NULL;
    }
    if (b.max_delay == 0) /* likewise: no pause is longer than none */
        return PyFloat_FromDouble(0.0);
    return PyFloat_FromDouble((double)klaw_backoff_delay(&b, attempt, chance) / 1e9);
}

static PyMethodDef functions[] = {
    {"config_init", config_init, METH_VARARGS, NULL},
    {"config_get", config_get, METH_NOARGS, NULL},
    {"config_forget", config_forget, METH_NOARGS, NULL},
    {"backoff_delay", backoff_delay, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int klawpy_config_init(PyObject *module, klawpy_state *st) {
    (void)st;
    return PyModule_AddFunctions(module, functions);
}
