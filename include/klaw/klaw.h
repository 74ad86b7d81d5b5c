/* SPDX-License-Identifier: Apache-2.0 */
/* klaw.h - everything. */
#ifndef KLAW_KLAW_H
#define KLAW_KLAW_H

#include "klaw/actor.h"
#include "klaw/alloc.h"
#include "klaw/broadcast.h"
#include "klaw/broker.h"
#include "klaw/channel.h"
#include "klaw/channel_log.h"
#include "klaw/config.h"
#include "klaw/context.h"
#include "klaw/err.h"
#include "klaw/executor.h"
#include "klaw/fiber.h"
#include "klaw/hub.h"
#include "klaw/inspect.h"
#include "klaw/log.h"
#include "klaw/oneshot.h"
#include "klaw/policy.h"
#include "klaw/pool.h"
#include "klaw/process.h"
#include "klaw/publish.h"
#include "klaw/registry.h"
#include "klaw/remote.h"
#include "klaw/retry.h"
#include "klaw/runtime.h"
#include "klaw/scope.h"
#include "klaw/select.h"
#include "klaw/signal.h"
#include "klaw/supervisor.h"
#include "klaw/store.h"
#include "klaw/time.h"
#include "klaw/trace.h"
#include "klaw/transport.h"
#include "klaw/type.h"
#include "klaw/waiter.h"
#include "klaw/watch.h"
#include "klaw/workflow.h"

KLAW_BEGIN

/* The version these headers belong to. */
#define KLAW_VERSION "0.1.0"

/* The version of the library that is loaded, e.g. "0.1.0". Static. */
KLAW_API const char *klaw_version(void);

KLAW_END

#endif
