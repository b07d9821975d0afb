/* What this machine can do at best, which operators are held against. */
#ifndef POCKETVL_PEAKS_H
#define POCKETVL_PEAKS_H

#include "plan.h"

/* Measures for about a tenth of a second each what the engine multiplies and what memory copies, and writes an object of the list
 * `peaks` of docs/BENCH.md. */
void peak_write(struct plan *plan, int threads);

/* Size of the largest cache that a processor has or shares; NaN: the kernel does not tell. */
double largest_cache_bytes(void);

#endif
