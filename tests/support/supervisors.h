/* SPDX-License-Identifier: Apache-2.0 */
/* supervisors.h - opening and ending supervisors. */
#ifndef KLAW_TESTS_SUPPORT_SUPERVISORS_H
#define KLAW_TESTS_SUPPORT_SUPERVISORS_H

#include "klaw/supervisor.h"
#include "support/runs.h"

static inline klaw_supervisor *opened(klaw_supervisor_opts o, const klaw_child_spec *c, size_t n) {
    klaw_supervisor *s = NULL;
    klaw_error_info info;
    klaw_err e = klaw_supervisor_open(&o, c, n, &s, &info);
    if (e)
        fprintf(stderr, "open: %s\n", info.message);
    OK(e);
    return s;
}
static inline klaw_err ended(klaw_supervisor *s) {
    klaw_err why;
    OK(klaw_supervisor_join(s, klaw_after(SOON_NS), &why));
    klaw_supervisor_unref(s);
    return why;
}
static inline void stop(klaw_supervisor *s) {
    OK(klaw_supervisor_stop(s, klaw_after(SOON_NS)));
    OK(ended(s));
}

#endif
