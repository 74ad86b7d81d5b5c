/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.h - who waits, for inspection. */
#ifndef KLAWPY_INSPECT_H
#define KLAWPY_INSPECT_H

#include "state.h"

/* The number of the task that calls, for klaw_op_label; st->label_of is not NULL. It is about to wait at `ends`: an
 * endpoint, or a tuple of them. */
KLAWPY_HIDDEN uint32_t klawpy_label(klawpy_state *st, PyObject *ends, bool timed);

#endif
