/* SPDX-License-Identifier: Apache-2.0 */
/* start.c - libklaw_ray: a Python interpreter inside the process, on a thread of its own, that fetches
 * klaw's questions (runtime/remote_desk.h) and puts them to Ray.
 *
 * A process that has an interpreter already (it is Python itself, or embeds one) lends it: the thread
 * joins it. A thread that holds the interpreter's lock may not ask, since it would wait for this one:
 * libklaw refuses it (klaw_ray_locks). Else the shared library of KLAW_PYTHON, or of the interpreter this
 * was built for, is loaded and initialised: executable set to that interpreter, because Ray starts
 * sys.executable; no signal handlers; the process's locale is left alone. An interpreter that was started
 * stays until the process ends.
 *
 * This file calls a dozen functions of CPython's and looks each one up: linking libpython would load a
 * second one into a process that has its own. PyConfig's layout belongs to a minor version, so that has to
 * be the one this was built with; everything else is done in Python (klaw_core/runtime/_embed.py). */
#include <Python.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "klaw/klaw.h"
#include "ray/boot.h"

#define STRING(x) STRING_OF(x)
#define STRING_OF(x) #x
#define BUILT_FOR STRING(PY_MAJOR_VERSION) "." STRING(PY_MINOR_VERSION)

/* What is needed of CPython. X(result, name, arguments) */
#define FUNCTIONS(X)                                                             \
    X(int, Py_IsInitialized, (void))                                             \
    X(const char *, Py_GetVersion, (void))                                       \
    X(int, PyRun_SimpleStringFlags, (const char *, PyCompilerFlags *))           \
    X(PyGILState_STATE, PyGILState_Ensure, (void))                               \
    X(void, PyGILState_Release, (PyGILState_STATE))                              \
    X(PyThreadState *, PyEval_SaveThread, (void))                                \
    X(void, PyPreConfig_InitPythonConfig, (PyPreConfig *))                       \
    X(PyStatus, Py_PreInitialize, (const PyPreConfig *))                         \
    X(void, PyConfig_InitPythonConfig, (PyConfig *))                             \
    X(PyStatus, PyConfig_SetBytesString, (PyConfig *, wchar_t **, const char *)) \
    X(PyStatus, Py_InitializeFromConfig, (const PyConfig *))                     \
    X(void, PyConfig_Clear, (PyConfig *))                                        \
    X(int, PyStatus_Exception, (PyStatus))

static struct {
#define MEMBER(result, name, arguments) result(*name) arguments;
    FUNCTIONS(MEMBER)
#undef MEMBER
} py;

static const klawi_desk *desk;
static bool ours; /* the interpreter was started here */

static bool look_up(void *library, void **where, const char *name, klaw_error_info *info) {
    *where = dlsym(library, name);
    if (!*where)
        klawi_ray_error(info, "that Python has no %s", name);
    return *where != NULL;
}

static klaw_err look_up_all(void *library, klaw_error_info *info) {
    void *at;
#define LOOK_UP(result, name, arguments)     \
    if (!look_up(library, &at, #name, info)) \
        return KLAW_BACKEND;                 \
    memcpy(&py.name, &at, sizeof at);
    FUNCTIONS(LOOK_UP)
#undef LOOK_UP
    return KLAW_OK;
}

static klaw_err check_version(const char *version, const char *whose, klaw_error_info *info) {
    size_t n = strlen(BUILT_FOR);
    if (strncmp(version, BUILT_FOR, n) == 0 && (version[n] < '0' || version[n] > '9'))
        return KLAW_OK;
    return klawi_ray_error(info,
                           "libklaw_ray was built for Python " BUILT_FOR ", %s is %.8s; KLAW_PYTHON"
                           " says which one to use, KLAW_RAY_LIBRARY which libklaw_ray",
                           whose, version);
}

static klaw_err initialize(const klawi_python *python, klaw_error_info *info) {
    PyPreConfig pre;
    PyConfig config;
    py.PyPreConfig_InitPythonConfig(&pre);
    pre.configure_locale = 0;
    pre.utf8_mode = 1;
    pre.parse_argv = 0;
    PyStatus status = py.Py_PreInitialize(&pre);
    if (py.PyStatus_Exception(status))
        return klawi_ray_error(info, "Python can't be started: %s", status.err_msg);
    py.PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.parse_argv = 0;
    status = py.PyConfig_SetBytesString(&config, &config.program_name, python->executable);
    if (!py.PyStatus_Exception(status))
        status = py.PyConfig_SetBytesString(&config, &config.executable, python->executable);
    if (!py.PyStatus_Exception(status))
        status = py.Py_InitializeFromConfig(&config);
    py.PyConfig_Clear(&config);
    if (py.PyStatus_Exception(status))
        return klawi_ray_error(info, "Python (%s) can't be started: %s", python->executable,
                               status.err_msg ? status.err_msg : "no reason given");
    ours = true;
    return KLAW_OK;
}

/* The interpreter that nobody has named: that of the build tree; that of the environment whose package
 * this library is part of (PREFIX/lib/python3.x/site-packages/klaw_core); else what the PATH has. */
static const char *find_python(char *out, size_t size) {
    static const char version[] = "python" BUILT_FOR;
    Dl_info here;
    const char *at = NULL;
    if (KLAW_RAY_PYTHON[0] && access(KLAW_RAY_PYTHON, X_OK) == 0)
        return KLAW_RAY_PYTHON;
    if (dladdr((const void *)(uintptr_t)&find_python, &here) && here.dli_fname)
        at = strstr(here.dli_fname, "/lib/python" BUILT_FOR "/");
    if (at) {
        int n =
            snprintf(out, size, "%.*s/bin/%s", (int)(at - here.dli_fname), here.dli_fname, version);
        if (n > 0 && (size_t)n < size && access(out, X_OK) == 0)
            return out;
    }
    return version;
}

/* Loads and starts the interpreter; the calling thread has its lock afterwards. */
static klaw_err start_python(klaw_error_info *info) {
    const char *path = getenv("KLAW_PYTHON");
    klawi_python python;
    char found[1024];
    if (!path || !*path)
        path = find_python(found, sizeof found);
    klaw_err e = klawi_python_ask(path, &python, info);
    if (!e)
        e = check_version(python.version, path, info);
    if (e)
        return e;
    if (!python.shared)
        return klawi_ray_error(info,
                               "Python %s (%s) has no shared library to embed: install"
                               " libpython" BUILT_FOR ", or build it with --enable-shared",
                               python.version, path);
    /* Global: the modules that Python loads expect to find it. */
    void *library = dlopen(python.library, RTLD_NOW | RTLD_GLOBAL);
    if (!library)
        return klawi_ray_error(info, "the library of Python can't be loaded: %s", dlerror());
    e = look_up_all(library, info);
    return e ? e : initialize(&python, info);
}

/* What the interpreter runs; the numbers are the desk and, for reasons why not, its `broken`. */
static const char script[] =
    "def klaw_boot(desk, broken, site, ours):\n"
    "    import ctypes, os, sys, traceback\n"
    "    def fail(text):\n"
    "        ctypes.CFUNCTYPE(None, "
    "ctypes.c_char_p)(broken)(text.encode('utf-8', 'replace')[:250])\n"
    "    if ours:\n" /* what Ray has to say is not the program's output */
    "        sys.stdout = sys.__stdout__ = sys.stderr\n"
    "    else:\n" /* the program's end waits for no thread that it takes for the main one by mistake */
    "        import threading\n"
    "        if threading.main_thread().ident == threading.get_ident():\n"
    "            lock = getattr(threading.main_thread(), '_tstate_lock', None)\n"
    "            getattr(threading, '_shutdown_locks', set()).discard(lock)\n"
    "    try:\n"
    "        try:\n"
    "            import klaw_core\n"
    "        except ImportError:\n"
    "            if not site or site in sys.path:\n"
    "                raise\n"
    "            sys.path.append(site)\n"
    "            paths = [p for p in (os.environ.get('PYTHONPATH'), site) if p]\n"
    "            os.environ['PYTHONPATH'] = os.pathsep.join(paths)\n" /* for Ray's workers */
    "            import klaw_core\n"
    "        from klaw_core.runtime import _embed\n"
    "    except ImportError as error:\n"
    "        fail('Python at ' + sys.executable + ' has no klaw_core that "
    "can be used (' + str(error)"
    " + '): pip install klaw-core[ray] there, or set KLAW_PYTHON')\n"
    "        return\n"
    "    try:\n"
    "        _embed.serve(desk)\n"
    "    except BaseException as error:\n"
    "        traceback.print_exc()\n"
    "        fail('the Ray backend failed: ' + repr(error))\n"
    "klaw_boot(%llu, %llu, %s, %d)\n"
    "del klaw_boot\n";

static bool run_script(void) {
    char text[sizeof script + 2048], site[1100];
    /* A path in the build tree: no quotes in it, or it is left out. */
    snprintf(site, sizeof site, "r'%s'", strpbrk(KLAW_RAY_SITE, "'\\\n") ? "" : KLAW_RAY_SITE);
    void (*broken)(const char *) = desk->broken;
    uintptr_t address;
    memcpy(&address, &broken, sizeof address);
    int n = snprintf(text, sizeof text, script, (unsigned long long)(uintptr_t)desk,
                     (unsigned long long)address, site, ours);
    return n > 0 && (size_t)n < sizeof text && py.PyRun_SimpleStringFlags(text, NULL) == 0;
}

static bool has_python(void) {
    void *symbol = dlsym(RTLD_DEFAULT, "Py_IsInitialized");
    int (*initialized)(void);
    memcpy(&initialized, &symbol, sizeof initialized);
    return symbol && initialized();
}

/* klaw's own threads block all signals, and what they start inherits that: Ray's processes could not be
 * told to end. So this thread, and what it starts, blocks what the program's first thread does. */
static void take_signal_mask(void) {
    char line[256];
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f)) {
        unsigned long long bits;
        sigset_t mask;
        if (sscanf(line, "SigBlk: %llx", &bits) != 1)
            continue;
        sigemptyset(&mask);
        for (int i = 1; i <= 64; i++)
            if (bits >> (i - 1) & 1)
                (void)sigaddset(&mask, i); /* libc keeps a few for itself */
        pthread_sigmask(SIG_SETMASK, &mask, NULL);
    }
    if (f)
        fclose(f);
}

/* The interpreter that is there. Python's `threading` takes the thread that imports it first for the
 * main one, whose end the program waits for: so it is the main thread that does. */
static klaw_err borrow_python(klaw_error_info *info) {
    klaw_err e = look_up_all(RTLD_DEFAULT, info);
    if (!e)
        e = check_version(py.Py_GetVersion(), ours ? "the one that runs" : "the program's own",
                          info);
    if (e || gettid() != getpid())
        return e;
    PyGILState_STATE state = py.PyGILState_Ensure();
    (void)py.PyRun_SimpleStringFlags("__import__('threading')", NULL);
    py.PyGILState_Release(state);
    return KLAW_OK;
}

static void *thread_main(void *arg) {
    klaw_error_info info = {.message = ""};
    bool lent = arg != NULL;
    pthread_setname_np(pthread_self(), "klaw-python");
    take_signal_mask();
    if (!lent && start_python(&info)) {
        desk->broken(info.message);
        return NULL;
    }
    PyGILState_STATE state = lent ? py.PyGILState_Ensure() : PyGILState_LOCKED;
    bool well = run_script();
    if (lent)
        py.PyGILState_Release(state);
    else
        (void)py.PyEval_SaveThread();
    /* After a failure it has been told why, and this says nothing new. */
    desk->broken(well ? NULL : "the Ray backend failed; see stderr");
    return NULL;
}

/* The lock is held by the thread whose state is the running one: PyGILState_Check alone says yes to
 * everybody once there are subinterpreters. See runtime/remote_desk.h. */
KLAW_API bool klaw_ray_locks(void);
KLAW_API bool klaw_ray_locks(void) {
    void *symbols[2];
    PyThreadState *(*running)(void), *(*own)(void);
#if PY_VERSION_HEX >= 0x030D0000
    symbols[0] = dlsym(RTLD_DEFAULT, "PyThreadState_GetUnchecked");
#else
    symbols[0] = dlsym(RTLD_DEFAULT, "_PyThreadState_UncheckedGet");
#endif
    symbols[1] = dlsym(RTLD_DEFAULT, "PyGILState_GetThisThreadState");
    if (!symbols[0] || !symbols[1] || !has_python())
        return false;
    memcpy(&running, &symbols[0], sizeof running);
    memcpy(&own, &symbols[1], sizeof own);
    PyThreadState *state = own();
    return state && state == running();
}

/* Begins to serve. See runtime/remote_desk.h. */
KLAW_API klaw_err klaw_ray_start(const klawi_desk *d, klaw_error_info *info);
KLAW_API klaw_err klaw_ray_start(const klawi_desk *d, klaw_error_info *info) {
    pthread_t thread;
    pthread_attr_t attr;
    if (d->version != KLAWI_DESK_VERSION || d->size < sizeof *d ||
        strcmp(d->library, KLAW_VERSION) != 0)
        return klawi_ray_error(info, "this libklaw_ray is of klaw " KLAW_VERSION ", libklaw is %s",
                               d->library);
    desk = d;
    bool lent = has_python();
    if (lent && borrow_python(info))
        return KLAW_BACKEND;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, (size_t)16 << 20);
    int e = pthread_create(&thread, &attr, thread_main, lent ? &py : NULL);
    pthread_attr_destroy(&attr);
    return e ? klawi_ray_error(info, "no thread for Python: %s", strerror(e)) : KLAW_OK;
}
