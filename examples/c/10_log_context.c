/* SPDX-License-Identifier: Apache-2.0 */
/* 10_log_context.c - records that say which piece of work they belong to.
 *
 * A context carries a request id, a trace and key/values. Fibers inherit it when they are spawned,
 * and the log writes it into every record: no function in between has to know. The log is silent
 * until a level is set. */
#include <klaw/klaw.h>

#include <string.h>
#include <unistd.h>

#include "check.h"

static int64_t must_not_run(void) {
    exit(1);
}

static klaw_err query(void *arg) {
    KLAW_LOG_INFO("query", klaw_log_i64("rows", *(int *)arg), klaw_log_bool("cached", false));
    KLAW_LOG_DEBUG("not written: the level is info, and these fields are not even computed",
                   klaw_log_i64("x", must_not_run()));
    return KLAW_OK;
}

static klaw_err request(void *arg) {
    klaw_context *with_id, *context;
    klaw_context_token token;
    klaw_trace trace;
    const char *header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    int rows = 7;
    CHECK(klaw_context_with_request_id(klaw_context_current(), arg, &with_id) == KLAW_OK);
    CHECK(klaw_traceparent_parse(header, strlen(header), &trace) == KLAW_OK);
    CHECK(klaw_context_with_trace(with_id, &trace, &context) == KLAW_OK);
    klaw_context_unref(with_id);

    CHECK(klaw_context_enter(context, &token) == KLAW_OK);
    klaw_scope *scope;
    CHECK(klaw_scope_open(NULL, &scope) == KLAW_OK);
    CHECK(klaw_go(query, &rows) == KLAW_OK); /* inherits it */
    klaw_err e = klaw_scope_close(scope);
    klaw_context_leave(&token);
    klaw_context_unref(context);
    return e;
}

static klaw_err first(void *arg) {
    (void)arg;
    klaw_scope *scope;
    CHECK(klaw_scope_open(NULL, &scope) == KLAW_OK);
    CHECK(klaw_go(request, "r-17") == KLAW_OK);
    CHECK(klaw_go(request, "r-18") == KLAW_OK);
    CHECK(klaw_scope_close(scope) == KLAW_OK);
    KLAW_LOG_WARN("a record of no request");
    return KLAW_OK;
}

int main(void) {
    int ends[2];
    char text[4096];
    CHECK(pipe(ends) == 0); /* to look at what was written */
    klaw_log_set_level(KLAW_LEVEL_INFO);
    klaw_log_set_format(KLAW_LOG_LOGFMT);
    klaw_log_set_fd(ends[1]);
    CHECK(klaw_run(first, NULL, NULL) == KLAW_OK);
    klaw_log_set_fd(KLAW_NONE);

    ssize_t n = read(ends[0], text, sizeof text - 1);
    CHECK(n > 0);
    text[n] = 0;
    fputs(text, stdout);
    CHECK(strstr(text, "request_id=r-17") && strstr(text, "request_id=r-18"));
    CHECK(strstr(text, "trace_id=0af7651916cd43dd8448eb211c80319c"));
    CHECK(strstr(text, "rows=7") && strstr(text, "level=warn") && !strstr(text, "not written"));
    close(ends[0]);
    close(ends[1]);
    return 0;
}
