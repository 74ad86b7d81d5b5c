/* SPDX-License-Identifier: Apache-2.0 */
/* klaw_test_native.c - a C extension module over libklaw, as users write them: makes channels, hands
 * their ends to Python in capsules, takes Python's, and works at the other end in fibers and threads.
 * For tests/python/runtime/channels/test_native.py; not installed.
 *
 * Fibers run in a klaw_runtime of this module's, from start() to stop(). */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdatomic.h>

#include <klaw/klaw.h>
#include <klaw/python.h>

static klaw_runtime *rt;
static _Atomic int running;

/* What a worker does: either end may be NULL. */
typedef struct job {
    klaw_err (*fn)(void *arg);
    klaw_receiver *rx;
    klaw_sender *tx;
    uint64_t n;
    bool bytes;
} job;

static PyObject *failed(klaw_err e) {
    return PyErr_Format(PyExc_RuntimeError, "%s", klaw_err_name(e));
}

static void done(job *j) {
    klaw_sender_unref(j->tx);
    klaw_receiver_unref(j->rx);
    free(j);
    atomic_fetch_sub(&running, 1);
}

/* Numbers, or n bytes that are n. */
static klaw_err send_number(job *j, uint64_t n) {
    klaw_blob *b;
    if (!j->bytes)
        return klaw_send(j->tx, &n, KLAW_FOREVER);
    klaw_err e = klaw_blob_new(NULL, (size_t)(n % 100), &b);
    if (e)
        return e;
    memset(klaw_blob_data(b), (int)(n & 255), klaw_blob_size(b));
    e = klaw_send(j->tx, &b, KLAW_FOREVER);
    if (e)
        klaw_blob_unref(b);
    return e;
}

static klaw_err generate(void *arg) {
    job *j = arg;
    klaw_err e = KLAW_OK;
    for (uint64_t i = 0; e == KLAW_OK && i < j->n; i++)
        e = send_number(j, i);
    done(j);
    return KLAW_OK;
}

/* Passes on what comes, as it is; when either side closes, both do. */
static klaw_err echo(void *arg) {
    job *j = arg;
    void *elem;
    while (klaw_recv(j->rx, &elem, KLAW_FOREVER) == KLAW_OK)
        if (klaw_send(j->tx, &elem, KLAW_FOREVER) != KLAW_OK) {
            if (j->bytes)
                klaw_blob_unref(elem);
            break;
        }
    done(j);
    return KLAW_OK;
}

static void *on_thread(void *arg) {
    job *j = arg;
    (void)j->fn(j);
    return NULL;
}

/* Starts a job as a fiber or as a thread; it is gone afterwards whatever happens. */
static bool launch(job j, int fiber) {
    job *mine = malloc(sizeof *mine);
    pthread_t thread;
    if (mine)
        *mine = j;
    atomic_fetch_add(&running, 1);
    if (mine && fiber && rt && klaw_runtime_spawn(rt, j.fn, mine, NULL, NULL) == KLAW_OK)
        return true;
    if (mine && !fiber && pthread_create(&thread, NULL, on_thread, mine) == 0) {
        pthread_detach(thread);
        return true;
    }
    if (mine)
        done(mine);
    PyErr_SetString(PyExc_RuntimeError, "the job does not start");
    return false;
}

static PyObject *start(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    klaw_err e = rt ? KLAW_EXISTS : klaw_runtime_open(NULL, &rt, NULL);
    return e ? failed(e) : Py_NewRef(Py_None);
}

static PyObject *stop(PyObject *self, PyObject *unused) {
    klaw_err e = KLAW_OK;
    (void)self, (void)unused;
    Py_BEGIN_ALLOW_THREADS if (rt) e = klaw_runtime_shutdown(rt, NULL, NULL);
    klaw_runtime_free(rt);
    rt = NULL;
    Py_END_ALLOW_THREADS return e ? failed(e) : Py_NewRef(Py_None);
}

static PyObject *get_running(PyObject *self, PyObject *unused) {
    (void)self, (void)unused;
    return PyLong_FromLong(atomic_load(&running));
}

/* generator(bytes, n, capacity, fiber): a receiver of n elements, which C sends. */
static PyObject *generator(PyObject *self, PyObject *args) {
    int bytes, fiber;
    unsigned long long n;
    long long capacity;
    klaw_sender *tx;
    klaw_receiver *rx;
    (void)self;
    if (!PyArg_ParseTuple(args, "pKLp", &bytes, &n, &capacity, &fiber))
        return NULL;
    klaw_channel_opts o = {.capacity = capacity, .name = "generator"};
    klaw_err e = klaw_channel(bytes ? &klaw_bytes : &klaw_u64, &o, &tx, &rx);
    if (e)
        return failed(e);
    PyObject *capsule = klaw_python_from_receiver(rx);
    if (!capsule)
        klaw_receiver_unref(rx);
    job j = {.fn = generate, .tx = tx, .n = n, .bytes = bytes};
    if (!launch(j, fiber))
        Py_CLEAR(capsule);
    return capsule;
}

/* echo(bytes, receiver's capsule, sender's capsule, fiber). */
static PyObject *start_echo(PyObject *self, PyObject *args) {
    int bytes, fiber;
    PyObject *from, *to;
    (void)self;
    if (!PyArg_ParseTuple(args, "pOOp", &bytes, &from, &to, &fiber))
        return NULL;
    const klaw_type *type = bytes ? &klaw_bytes : &klaw_u64;
    klaw_receiver *rx = klaw_python_take_receiver(from, type);
    if (!rx)
        return NULL;
    klaw_sender *tx = klaw_python_take_sender(to, type);
    if (!tx) {
        klaw_receiver_unref(rx);
        return NULL;
    }
    job j = {.fn = echo, .rx = rx, .tx = tx, .bytes = bytes};
    return launch(j, fiber) ? Py_NewRef(Py_None) : NULL;
}

/* other(kind): a receiver of a channel that is not a plain one of u64 with one element (7) in it. */
static PyObject *other(PyObject *self, PyObject *args) {
    const char *kind;
    klaw_sender *tx = NULL;
    klaw_receiver *rx = NULL;
    uint64_t seven = 7, zero = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "s", &kind))
        return NULL;
    klaw_channel_opts ring = {.capacity = 4, .one_to_one = true};
    klaw_err e = strcmp(kind, "oneshot") == 0     ? klaw_oneshot(&klaw_u64, &tx, &rx)
                 : strcmp(kind, "broadcast") == 0 ? klaw_broadcast(&klaw_u64, NULL, &tx, &rx)
                 : strcmp(kind, "watch") == 0     ? klaw_watch(&klaw_u64, &zero, &tx, &rx)
                 : strcmp(kind, "pointers") == 0  ? klaw_channel(&klaw_ptr, NULL, &tx, &rx)
                                                  : klaw_channel(&klaw_u64, &ring, &tx, &rx);
    if (e == KLAW_OK)
        e = klaw_send(tx, &seven, KLAW_NOWAIT);
    PyObject *capsule = e ? failed(e) : klaw_python_from_receiver(rx);
    if (!capsule)
        klaw_receiver_unref(rx);
    klaw_sender_unref(tx);
    return capsule;
}

/* A capsule whose name is right and whose context is not: as of a second copy of libklaw. */
static PyObject *foreign(PyObject *self, PyObject *unused) {
    static int somewhere;
    (void)self, (void)unused;
    PyObject *capsule = PyCapsule_New(&somewhere, KLAW_CAPSULE_SENDER_U64, NULL);
    if (capsule && PyCapsule_SetContext(capsule, &somewhere) < 0)
        Py_CLEAR(capsule);
    return capsule;
}

static PyMethodDef functions[] = {
    {"start", start, METH_NOARGS, NULL},         {"stop", stop, METH_NOARGS, NULL},
    {"running", get_running, METH_NOARGS, NULL}, {"generator", generator, METH_VARARGS, NULL},
    {"echo", start_echo, METH_VARARGS, NULL},    {"other", other, METH_VARARGS, NULL},
    {"foreign", foreign, METH_NOARGS, NULL},     {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "klaw_test_native",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit_klaw_test_native(void);
PyMODINIT_FUNC PyInit_klaw_test_native(void) {
    return PyModule_Create(&definition);
}
