/* SPDX-License-Identifier: Apache-2.0 */
/* Headers from outside: what is accepted is written the same way again, and nothing is accepted that has no ids. */
#include <string.h>

#include "fuzz.h"
#include "klaw/context.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t zero[16];
    klaw_trace trace, again;
    char text[KLAW_TRACEPARENT_SIZE];
    klaw_err e = klaw_traceparent_parse((const char *)data, size, &trace);
    if (e) {
        HOLDS(e == KLAW_INVALID);
        return 0;
    }
    HOLDS(memcmp(trace.trace_id, zero, 16) != 0 && memcmp(trace.span_id, zero, 8) != 0);
    HOLDS(klaw_traceparent_format(&trace, text) == KLAW_OK);
    HOLDS(klaw_traceparent_parse(text, strlen(text), &again) == KLAW_OK);
    HOLDS(memcmp(trace.trace_id, again.trace_id, 16) == 0 &&
          memcmp(trace.span_id, again.span_id, 8) == 0);
    /* Of version 00 the text itself comes back, flags aside (unknown ones are not kept). */
    if (data[0] == '0' && data[1] == '0')
        HOLDS(memcmp(text, data, 53) == 0);
    return 0;
}
