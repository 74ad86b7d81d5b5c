/* SPDX-License-Identifier: Apache-2.0 */
/* remote_codec.h - elements of remote channels to and from MessagePack. */
#ifndef KLAWI_REMOTE_CODEC_H
#define KLAWI_REMOTE_CODEC_H

#include "klaw/broker.h"
#include "klaw/type.h"

/* TYPE: elements of this type can't leave the process. */
klaw_err klawi_remote_codec_check(const klaw_type *type);
/* One element as MessagePack: integers, floats, str and bin for the ready-made types; of any other
 * type what its `encode` gives, in a bin, or (packed) as it is. One reference, the caller's. NOMEM, or
 * what `encode` answered. */
klaw_err klawi_remote_encode(const klaw_type *type, bool packed, const void *elem, klaw_blob **out);
/* The other way. TYPE: it is something else than the type takes (pickled, or of another kind);
 * CORRUPT: not one whole object; NOMEM, or what `decode` answered. */
klaw_err klawi_remote_decode(const klaw_type *type, bool packed, klaw_remote_codec codec,
                             const void *data, size_t size, void *elem);

#endif
