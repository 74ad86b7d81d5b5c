/* SPDX-License-Identifier: Apache-2.0 */
/* result.c - Result (Ok, Err) and Option (Some, Nothing): immutable boxes with one value.
 *
 * The four types share one struct and, two by two, one set of methods: `kind` says which it is, and
 * `good` is what the methods branch on. A box never changes after it was made, so it needs no lock in a
 * build without the GIL. It takes part in garbage collection because its value may refer to it, unless
 * that is of a kind that refers to nothing (as tuples do it).
 *
 * Unwrapping an Err raises what it holds: an exception as it is, a value with to_exception() as what that
 * gives, anything else inside UnwrapError. */
#include "result.h"

#include <stddef.h>
#include <structmember.h>

typedef enum kind { KIND_OK, KIND_ERR, KIND_SOME, KIND_NOTHING } kind;

typedef struct box {
    PyObject_HEAD PyObject *value; /* NULL in Nothing alone */
    kind kind;
} box;

static const char *const names[] = {"Ok", "Err", "Some", "Nothing"};

static inline bool good(PyObject *self) {
    kind k = ((box *)self)->kind;
    return k == KIND_OK || k == KIND_SOME;
}

static inline PyObject *value_of(PyObject *self) {
    return ((box *)self)->value;
}

static inline klawpy_state *state(PyObject *self) {
    return klawpy_state_of(Py_TYPE(self));
}

static PyObject *fill(box *b, kind k, PyObject *value) {
    b->value = Py_XNewRef(value);
    b->kind = k;
    if (value && PyType_IS_GC(Py_TYPE(value)))
        PyObject_GC_Track(b);
    return (PyObject *)b;
}

static PyObject *make(PyTypeObject *type, kind k, PyObject *value) {
    box *b = PyObject_GC_New(box, type);
    return b ? fill(b, k, value) : NULL;
}

PyObject *klawpy_ok(klawpy_state *st, PyObject *value) {
    if (value == Py_None && st->ok_none)
        return Py_NewRef(st->ok_none);
    if (!st->free_ok_count)
        return make(st->ok_type, KIND_OK, value);
    PyObject *b = st->free_oks[--st->free_ok_count];
    klawpy_revive(b, st->ok_type);
    return fill((box *)b, KIND_OK, value);
}

void klawpy_result_free_all(klawpy_state *st) {
    while (st->free_ok_count)
        PyObject_GC_Del(st->free_oks[--st->free_ok_count]);
}

PyObject *klawpy_err(klawpy_state *st, PyObject *error) {
    return make(st->err_type, KIND_ERR, error);
}

PyObject *klawpy_some(klawpy_state *st, PyObject *value) {
    return make(st->some_type, KIND_SOME, value);
}

PyObject *klawpy_nothing(klawpy_state *st) {
    return Py_NewRef(st->nothing);
}

/* --- life --- */
static PyObject *new_box(PyTypeObject *type, kind k, PyObject *args, PyObject *kwargs, char *name) {
    char *keys[] = {name, NULL};
    PyObject *value;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", keys, &value))
        return NULL;
    return make(type, k, value);
}

static PyObject *new_ok(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return new_box(type, KIND_OK, args, kwargs, "value");
}

/* Ok(value), as it is nearly always called: without making a tuple of the arguments. */
static PyObject *call_ok(PyObject *type, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    PyTypeObject *t = (PyTypeObject *)type;
    if (PyVectorcall_NARGS(nargsf) == 1 && !kwnames) {
        klawpy_state *st = PyType_GetModuleState(t);
        return st ? klawpy_ok(st, args[0]) : NULL;
    }
    Py_ssize_t n = PyVectorcall_NARGS(nargsf);
    PyObject *tuple = PyTuple_New(n), *kwargs = kwnames ? PyDict_New() : NULL, *r = NULL;
    bool ok = tuple && (kwargs || !kwnames);
    for (Py_ssize_t i = 0; ok && i < n; i++)
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    for (Py_ssize_t i = 0; ok && kwnames && i < PyTuple_GET_SIZE(kwnames); i++)
        ok = PyDict_SetItem(kwargs, PyTuple_GET_ITEM(kwnames, i), args[n + i]) == 0;
    if (ok)
        r = new_ok(t, tuple, kwargs);
    Py_XDECREF(tuple);
    Py_XDECREF(kwargs);
    return r;
}

static PyObject *new_err(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return new_box(type, KIND_ERR, args, kwargs, "error");
}

static PyObject *new_some(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return new_box(type, KIND_SOME, args, kwargs, "value");
}

static PyObject *new_nothing(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    char *keys[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "", keys))
        return NULL;
    klawpy_state *st = klawpy_state_of(type);
    return st ? Py_NewRef(st->nothing) : NULL;
}

static int box_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(value_of(self));
    return 0;
}

static int box_clear(PyObject *self) {
    Py_CLEAR(((box *)self)->value);
    return 0;
}

/* The state of the type's module, without touching an exception that is set; NULL: a type that the
 * collector has cleared has none. */
static klawpy_state *state_quietly(PyTypeObject *type) {
    PyObject *error, *value, *trace;
    if (!PyErr_Occurred()) {
        klawpy_state *st = PyType_GetModuleState(type);
        if (!st)
            PyErr_Clear();
        return st;
    }
    PyErr_Fetch(&error, &value, &trace);
    klawpy_state *st = PyType_GetModuleState(type);
    PyErr_Restore(error, value, trace);
    return st;
}

static void box_free(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    /* The types have no subtypes, so the state is the type's own module's. */
    klawpy_state *st = ((box *)self)->kind == KIND_OK ? state_quietly(type) : NULL;
    if (st && st->ok_type && st->free_ok_count < KLAWPY_FREE_OKS)
        st->free_oks[st->free_ok_count++] = self;
    else
        type->tp_free(self);
    Py_DECREF(type);
}

static void box_dealloc(PyObject *self) {
    PyObject *value = ((box *)self)->value;
    if (value && (PyLong_CheckExact(value) || PyUnicode_CheckExact(value))) {
        ((box *)self)->value = NULL; /* nothing that could go deep */
        Py_DECREF(value);
        box_free(self);
        return;
    }
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, box_dealloc) Py_CLEAR(((box *)self)->value);
    box_free(self);
    Py_TRASHCAN_END
}

/* --- as a value: repr, equality, hash, pickling --- */
static PyObject *box_repr(PyObject *self) {
    const char *name = names[((box *)self)->kind];
    if (!value_of(self))
        return PyUnicode_FromString(name);
    int depth = Py_ReprEnter(self);
    if (depth != 0)
        return depth > 0 ? PyUnicode_FromFormat("%s(...)", name) : NULL;
    PyObject *text = PyUnicode_FromFormat("%s(%R)", name, value_of(self));
    Py_ReprLeave(self);
    return text;
}

static PyObject *box_compare(PyObject *a, PyObject *b, int op) {
    if ((op != Py_EQ && op != Py_NE) || Py_TYPE(a) != Py_TYPE(b))
        Py_RETURN_NOTIMPLEMENTED;
    if (!value_of(a) || !value_of(b))
        return PyBool_FromLong((value_of(a) == value_of(b)) == (op == Py_EQ));
    return PyObject_RichCompare(value_of(a), value_of(b), op);
}

static Py_hash_t box_hash(PyObject *self) {
    Py_hash_t h = value_of(self) ? PyObject_Hash(value_of(self)) : 0;
    if (h == -1)
        return -1;
    h = (Py_hash_t)((Py_uhash_t)h * 31u + (Py_uhash_t)((box *)self)->kind + 1u);
    return h == -1 ? -2 : h;
}

static PyObject *box_reduce(PyObject *self, PyObject *unused) {
    (void)unused;
    if (!value_of(self))
        return Py_BuildValue("O()", Py_TYPE(self));
    return Py_BuildValue("O(O)", Py_TYPE(self), value_of(self));
}

static int nothing_bool(PyObject *self) {
    (void)self;
    return 0;
}

/* --- looking --- */
static PyObject *is_good(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(good(self));
}

static PyObject *is_bad(PyObject *self, PyObject *unused) {
    (void)unused;
    return PyBool_FromLong(!good(self));
}

/* Result.ok and Result.err: the one side as an Option. */
static PyObject *as_option(PyObject *self, bool wanted) {
    klawpy_state *st = state(self);
    if (!st)
        return NULL;
    return good(self) == wanted ? klawpy_some(st, value_of(self)) : klawpy_nothing(st);
}

static PyObject *result_ok(PyObject *self, PyObject *unused) {
    (void)unused;
    return as_option(self, true);
}

static PyObject *result_err(PyObject *self, PyObject *unused) {
    (void)unused;
    return as_option(self, false);
}

/* --- unwrapping --- */
/* Raises what an Err holds (see above). `message`: in front, or NULL. Always NULL. */
static PyObject *raise_error(klawpy_state *st, PyObject *error, PyObject *message) {
    PyObject *exception = NULL;
    if (PyExceptionInstance_Check(error)) {
        exception = Py_NewRef(error);
    } else {
        PyObject *method = PyObject_GetAttr(error, st->s_to_exception);
        if (method) {
            exception = PyObject_CallNoArgs(method);
            Py_DECREF(method);
            if (!exception)
                return NULL;
            if (!PyExceptionInstance_Check(exception))
                Py_CLEAR(exception);
        } else if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();
        } else {
            return NULL;
        }
    }
    if (exception && !message) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
    } else {
        PyObject *text = message ? PyUnicode_FromFormat("%S: %R", message, error)
                                 : PyUnicode_FromFormat("Err(%R)", error);
        PyObject *wrapped =
            text ? PyObject_CallFunctionObjArgs(st->unwrap_error, text, error, NULL) : NULL;
        if (wrapped) {
            if (exception)
                PyException_SetCause(wrapped, Py_NewRef(exception));
            PyErr_SetObject(st->unwrap_error, wrapped);
        }
        Py_XDECREF(wrapped);
        Py_XDECREF(text);
    }
    Py_XDECREF(exception);
    return NULL;
}

static PyObject *raise_text(klawpy_state *st, PyObject *text) {
    if (text)
        PyErr_SetObject(st->unwrap_error, text);
    Py_XDECREF(text);
    return NULL;
}

static PyObject *unwrap_with(PyObject *self, PyObject *message) {
    if (good(self))
        return Py_NewRef(value_of(self));
    klawpy_state *st = state(self);
    if (!st)
        return NULL;
    if (((box *)self)->kind == KIND_ERR)
        return raise_error(st, value_of(self), message);
    return raise_text(st, message ? PyUnicode_FromFormat("%S", message)
                                  : PyUnicode_FromString("unwrap of Nothing"));
}

static PyObject *unwrap(PyObject *self, PyObject *unused) {
    (void)unused;
    return unwrap_with(self, NULL);
}

static PyObject *expect(PyObject *self, PyObject *message) {
    return unwrap_with(self, message);
}

static PyObject *unwrap_err(PyObject *self, PyObject *unused) {
    (void)unused;
    if (!good(self))
        return Py_NewRef(value_of(self));
    klawpy_state *st = state(self);
    return st ? raise_text(st, PyUnicode_FromFormat("unwrap_err of %R", self)) : NULL;
}

static PyObject *unwrap_or(PyObject *self, PyObject *fallback) {
    return Py_NewRef(good(self) ? value_of(self) : fallback);
}

/* f(error) for a Result, f() for an Option. */
static PyObject *call_bad(PyObject *self, PyObject *f) {
    return value_of(self) ? PyObject_CallOneArg(f, value_of(self)) : PyObject_CallNoArgs(f);
}

static PyObject *unwrap_or_else(PyObject *self, PyObject *f) {
    return good(self) ? Py_NewRef(value_of(self)) : call_bad(self, f);
}

/* --- combining --- */
/* The same variant around f(value); self when it is of the other side. */
static PyObject *mapped(PyObject *self, PyObject *f, bool side) {
    if (good(self) != side || !value_of(self))
        return Py_NewRef(self);
    PyObject *v = PyObject_CallOneArg(f, value_of(self));
    PyObject *r = v ? make(Py_TYPE(self), ((box *)self)->kind, v) : NULL;
    Py_XDECREF(v);
    return r;
}

static PyObject *map(PyObject *self, PyObject *f) {
    return mapped(self, f, true);
}

static PyObject *map_err(PyObject *self, PyObject *f) {
    return mapped(self, f, false);
}

/* What a function given to and_then and or_else has to return. */
static PyObject *same_family(PyObject *self, PyObject *r, const char *method) {
    if (!r)
        return NULL;
    klawpy_state *st = state(self);
    if (!st)
        goto bad;
    bool result = ((box *)self)->kind <= KIND_ERR;
    if (result ? PyObject_TypeCheck(r, st->ok_type) || PyObject_TypeCheck(r, st->err_type)
               : PyObject_TypeCheck(r, st->some_type) || PyObject_TypeCheck(r, st->nothing_type))
        return r;
    PyErr_Format(PyExc_TypeError, "the function given to %s has to return %s, not %.100s", method,
                 result ? "Ok or Err" : "Some or Nothing", Py_TYPE(r)->tp_name);
bad:
    Py_DECREF(r);
    return NULL;
}

static PyObject *and_then(PyObject *self, PyObject *f) {
    if (!good(self))
        return Py_NewRef(self);
    return same_family(self, PyObject_CallOneArg(f, value_of(self)), "and_then");
}

static PyObject *or_else(PyObject *self, PyObject *f) {
    if (good(self))
        return Py_NewRef(self);
    return same_family(self, call_bad(self, f), "or_else");
}

static PyObject *ok_or(PyObject *self, PyObject *error) {
    klawpy_state *st = state(self);
    if (!st)
        return NULL;
    return good(self) ? klawpy_ok(st, value_of(self)) : klawpy_err(st, error);
}

static PyObject *ok_or_else(PyObject *self, PyObject *f) {
    klawpy_state *st = state(self);
    if (!st)
        return NULL;
    if (good(self))
        return klawpy_ok(st, value_of(self));
    PyObject *error = PyObject_CallNoArgs(f);
    PyObject *r = error ? klawpy_err(st, error) : NULL;
    Py_XDECREF(error);
    return r;
}

/* --- tables --- */
#define COMMON                                                                                    \
    {"unwrap", unwrap, METH_NOARGS,                                                               \
     "unwrap($self, /)\n--\n\nThe value; else raises what the error is (UnwrapError if it is no " \
     "exception).\n\n>>> Ok(1).unwrap()\n1"},                                                     \
        {"expect", expect, METH_O,                                                                \
         "expect($self, message, /)\n--\n\nThe value; else raises UnwrapError with this "         \
         "message.\n\n>>> Some(1).expect('a number')\n1"},                                        \
        {"unwrap_or", unwrap_or, METH_O,                                                          \
         "unwrap_or($self, default, /)\n--\n\nThe value, or the default.\n\n"                     \
         ">>> Err('no').unwrap_or(0)\n0"},                                                        \
        {"unwrap_or_else", unwrap_or_else, METH_O,                                                \
         "unwrap_or_else($self, f, /)\n--\n\nThe value, or f(error); f() for Nothing.\n\n"        \
         ">>> Err('no').unwrap_or_else(len)\n2"},                                                 \
        {"map", map, METH_O,                                                                      \
         "map($self, f, /)\n--\n\nThe same with f(value).\n\n>>> Ok(1).map(str)\nOk('1')"},       \
        {"and_then", and_then, METH_O,                                                            \
         "and_then($self, f, /)\n--\n\nf(value), itself a result.\n\n"                            \
         ">>> Ok(1).and_then(lambda v: Err(v))\nErr(1)"},                                         \
        {"or_else", or_else, METH_O,                                                              \
         "or_else($self, f, /)\n--\n\nItself, or f(error); f() for Nothing.\n\n"                  \
         ">>> Err(1).or_else(Ok)\nOk(1)"},                                                        \
        {"__reduce__", box_reduce, METH_NOARGS, NULL}, {                                          \
        "__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL                           \
    }

static PyMethodDef result_methods[] = {
    {"is_ok", is_good, METH_NOARGS,
     "is_ok($self, /)\n--\n\nWhether this is Ok.\n\n>>> Ok(1).is_ok()\nTrue"},
    {"is_err", is_bad, METH_NOARGS,
     "is_err($self, /)\n--\n\nWhether this is Err.\n\n>>> Ok(1).is_err()\nFalse"},
    {"ok", result_ok, METH_NOARGS,
     "ok($self, /)\n--\n\nSome(value), or Nothing.\n\n>>> Ok(1).ok()\nSome(1)"},
    {"err", result_err, METH_NOARGS,
     "err($self, /)\n--\n\nSome(error), or Nothing.\n\n>>> Ok(1).err()\nNothing"},
    {"unwrap_err", unwrap_err, METH_NOARGS,
     "unwrap_err($self, /)\n--\n\nThe error; UnwrapError when this is Ok.\n\n"
     ">>> Err('no').unwrap_err()\n'no'"},
    {"map_err", map_err, METH_O,
     "map_err($self, f, /)\n--\n\nThe same with f(error).\n\n>>> Err(1).map_err(str)\nErr('1')"},
    COMMON,
    {NULL, NULL, 0, NULL},
};

static PyMethodDef option_methods[] = {
    {"is_some", is_good, METH_NOARGS,
     "is_some($self, /)\n--\n\nWhether there is a value.\n\n>>> Some(1).is_some()\nTrue"},
    {"is_none", is_bad, METH_NOARGS,
     "is_none($self, /)\n--\n\nWhether there is none.\n\n>>> Nothing.is_none()\nTrue"},
    {"ok_or", ok_or, METH_O,
     "ok_or($self, error, /)\n--\n\nOk(value), or Err(error).\n\n>>> Nothing.ok_or('no')\n"
     "Err('no')"},
    {"ok_or_else", ok_or_else, METH_O,
     "ok_or_else($self, f, /)\n--\n\nOk(value), or Err(f()).\n\n>>> Some(1).ok_or_else(str)\n"
     "Ok(1)"},
    COMMON,
    {NULL, NULL, 0, NULL},
};

static PyMemberDef value_members[] = {
    {"value", T_OBJECT_EX, offsetof(box, value), READONLY, "What it holds."},
    {NULL, 0, 0, 0, NULL},
};

static PyMemberDef error_members[] = {
    {"error", T_OBJECT_EX, offsetof(box, value), READONLY, "What it holds."},
    {NULL, 0, 0, 0, NULL},
};

#define SLOTS(make_new, methods, doc)                                                    \
    {Py_tp_new, make_new}, {Py_tp_dealloc, box_dealloc}, {Py_tp_traverse, box_traverse}, \
        {Py_tp_clear, box_clear}, {Py_tp_repr, box_repr}, {Py_tp_hash, box_hash},        \
        {Py_tp_richcompare, box_compare}, {Py_tp_methods, methods}, {                    \
        Py_tp_doc, (void *)(doc)                                                         \
    }
#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE)

static PyType_Slot ok_slots[] = {
    SLOTS(new_ok, result_methods,
          "Ok(value)\n--\n\nThe good side of a Result.\n\n>>> match Ok(1):\n...     case Ok(v): "
          "print(v)\n1"),
    {Py_tp_members, value_members},
    {0, NULL}};
static PyType_Slot err_slots[] = {
    SLOTS(new_err, result_methods,
          "Err(error)\n--\n\nThe bad side of a Result.\n\n>>> match Err('no'):\n...     case "
          "Err(e): print(e)\nno"),
    {Py_tp_members, error_members},
    {0, NULL}};
static PyType_Slot some_slots[] = {
    SLOTS(new_some, option_methods,
          "Some(value)\n--\n\nAn Option with a value.\n\n>>> Some(1).value\n1"),
    {Py_tp_members, value_members},
    {0, NULL}};
static PyType_Slot nothing_slots[] = {
    SLOTS(new_nothing, option_methods,
          "NothingType()\n--\n\nThe type of Nothing, the Option without a value.\n\n"
          ">>> NothingType() is Nothing\nTrue"),
    {Py_nb_bool, nothing_bool},
    {0, NULL}};

#define SPEC(var, text, slots_)                                \
    static PyType_Spec var = {.name = "klaw_core._klaw." text, \
                              .basicsize = sizeof(box),        \
                              .flags = FLAGS,                  \
                              .slots = slots_}
SPEC(ok_spec, "Ok", ok_slots);
SPEC(err_spec, "Err", err_slots);
SPEC(some_spec, "Some", some_slots);
SPEC(nothing_spec, "NothingType", nothing_slots);

/* The type with the name of its field for `case Ok(v)`. Before it is immutable for users: the attribute
 * goes straight into its dictionary. */
static PyTypeObject *add_matched(PyObject *module, PyType_Spec *spec, const char *field) {
    PyTypeObject *t = klawpy_add_type(module, spec, NULL);
    PyObject *args = t ? Py_BuildValue("(s)", field) : NULL;
    if (args && PyDict_SetItemString(t->tp_dict, "__match_args__", args) < 0)
        Py_CLEAR(args);
    if (!args)
        Py_CLEAR(t);
    else
        PyType_Modified(t);
    Py_XDECREF(args);
    return t;
}

int klawpy_result_init(PyObject *module, klawpy_state *st) {
    if (!(st->ok_type = add_matched(module, &ok_spec, "value")) ||
        !(st->err_type = add_matched(module, &err_spec, "error")) ||
        !(st->some_type = add_matched(module, &some_spec, "value")) ||
        !(st->nothing_type = klawpy_add_type(module, &nothing_spec, NULL)) ||
        !(st->s_to_exception = PyUnicode_InternFromString("to_exception")) ||
        (st->ok_type->tp_vectorcall = call_ok, false) ||
        !(st->ok_none = make(st->ok_type, KIND_OK, Py_None)) ||
        !(st->nothing = make(st->nothing_type, KIND_NOTHING, NULL)) ||
        PyModule_AddObjectRef(module, "Nothing", st->nothing) < 0)
        return -1;
    st->unwrap_error = PyErr_NewExceptionWithDoc("klaw_core._klaw.UnwrapError",
                                                 "A result was unwrapped that is of the other "
                                                 "side. args: a text and, from an Err, its error.",
                                                 PyExc_RuntimeError, NULL);
    return st->unwrap_error ? PyModule_AddObjectRef(module, "UnwrapError", st->unwrap_error) : -1;
}
