/* SPDX-License-Identifier: Apache-2.0 */
/* remote_load.c - finds libklaw_ray.so, which is no dependency of libklaw: a program that shares no
 * channel with Ray needs neither it nor Python.
 *
 * KLAW_RAY_LIBRARY names the file; else it is looked for beside the code that runs here (libklaw, or a
 * program that has it inside), then where the system's loader looks. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "klaw/klaw.h"
#include "runtime/remote_desk.h"

#define SONAME "libklaw_ray.so.0"

static void *open_at(const char *path, char *why, size_t size) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const char *error = handle ? NULL : dlerror();
    if (!handle)
        snprintf(why, size, "%.*s", (int)size - 1, error ? error : path);
    return handle;
}

static void *open_beside(char *why, size_t size) {
    Dl_info here;
    char path[4096];
    if (!dladdr((const void *)(uintptr_t)&klawi_remote_load, &here) || !here.dli_fname)
        return NULL;
    const char *slash = strrchr(here.dli_fname, '/');
    int folder = slash ? (int)(slash - here.dli_fname) : 1;
    int n = snprintf(path, sizeof path, "%.*s/%s", folder, slash ? here.dli_fname : ".", SONAME);
    return n > 0 && (size_t)n < sizeof path ? open_at(path, why, size) : NULL;
}

klaw_err klawi_remote_load(const klawi_desk *desk, klawi_desk_locks *locks, klaw_error_info *info) {
    char why[160] = "";
    const char *given = klawi_env("KLAW_RAY_LIBRARY");
    void *handle = given ? open_at(given, why, sizeof why) : open_beside(why, sizeof why);
    if (!handle && !given)
        handle = open_at(SONAME, why, sizeof why);
    if (!handle)
        return klawi_error(info, KLAW_BACKEND, "%s can't be loaded (%s); %s",
                           given ? "KLAW_RAY_LIBRARY" : SONAME, why,
                           given ? "it has to be the path of " SONAME
                                 : "is klaw's Ray part installed? KLAW_RAY_LIBRARY says where");
    klawi_desk_start start = NULL;
    void *symbol = dlsym(handle, "klaw_ray_start"), *other = dlsym(handle, "klaw_ray_locks");
    memcpy(&start, &symbol, sizeof start); /* a pointer to a function, as POSIX has it */
    memcpy(locks, &other, sizeof *locks);
    if (!start || !*locks)
        return klawi_error(info, KLAW_BACKEND, "%s is not klaw's Ray part: no klaw_ray_%s",
                           given ? given : SONAME, start ? "locks" : "start");
    return start(desk, info);
}
