/* SPDX-License-Identifier: Apache-2.0 */
/* pack.h - JSON as elements of a channel: MessagePack on the wire, as Python's codec "msgpack" has it. */
#ifndef CLI_PACK_H
#define CLI_PACK_H

#include <klaw/type.h>

/* Elements are json_t *, owned. Bytes (which JSON has not) become {"base16": "…"} when they are received. For
 * klaw_remote_opts.packed. */
extern const klaw_type cli_json_type;

#endif
