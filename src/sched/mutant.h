/* SPDX-License-Identifier: Apache-2.0 */
/* mutant.h - bugs on purpose: each rule of the protocol has a switch that breaks it, in the
 * deterministic build only, and an interleaving test that must notice (tests/interleave). Elsewhere
 * KLAWI_MUTANT is the constant false. */
#ifndef KLAWI_MUTANT_H
#define KLAWI_MUTANT_H

#if defined(KLAWI_DET)
#include "plat/det.h"
#else
#define KLAWI_MUTANT(id) 0
#endif

#endif
