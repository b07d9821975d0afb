/* Where the time of a graph goes, operator by operator, as the engine's profiler tells it. */
#ifndef POCKETVL_OPS_H
#define POCKETVL_OPS_H

#include <stdint.h>

struct op_log;

struct op_log *op_log_new(void);

/* What follows is of another run, and counts. */
void op_log_begin_run(struct op_log *log);

/* What follows is not kept, as in runs that warm up. */
void op_log_pause(struct op_log *log);

/* The engine's own kernel begins and ends; kernels that it calls lie between the two. */
void op_begin(struct op_log *log, const char *type, int64_t node, int64_t subgraph);
void op_end(struct op_log *log);

/* The delegate has run an operator, of which it told the time. It counts its operators from 0 in each part of the graph. */
void op_delegated(struct op_log *log, const char *type, uint64_t us, int64_t index, int64_t subgraph);

/* How many operators were told of. */
int op_count(const struct op_log *log);

/* The list `ops` of docs/BENCH.md. */
void ops_write(const struct op_log *log);

#endif
