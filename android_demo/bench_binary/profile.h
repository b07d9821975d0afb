/* One graph at one number of threads, timed without and with the engine's profiler. */
#ifndef POCKETVL_PROFILE_H
#define POCKETVL_PROFILE_H

#include "plan.h"
#include "tflite.h"

struct profile;

/* Loads the graph once more, with the profiler, and runs `plain`, which is without, to see how often it can be run. */
struct profile *profile_open(struct graph_plan *plan, struct graph *plain, int threads);

/* Rounds of several graphs take turns, so that whatever slows the machine for a while slows all alike. */
enum { PROFILE_ROUNDS = 3 };
void profile_round(struct profile *profile);

/* An object of the list `graphs` of docs/BENCH.md. */
void profile_write(const struct profile *profile);

#endif
