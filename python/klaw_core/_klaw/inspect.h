/* SPDX-License-Identifier: Apache-2.0 */
/* inspect.h - who waits, for inspection. */
#ifndef KLAWPY_INSPECT_H
#define KLAWPY_INSPECT_H

#include "state.h"

/* The number of the task that calls, for klaw_op_label; st->label_of is not NULL. */
KLAWPY_HIDDEN uint32_t klawpy_label(klawpy_state *st);

#endif
