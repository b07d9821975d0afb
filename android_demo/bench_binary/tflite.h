/* TensorFlow Lite's C API, as far as the bench needs it, out of whichever library lies beside the program. */
#ifndef POCKETVL_TFLITE_H
#define POCKETVL_TFLITE_H

#include <stddef.h>

#include "ops.h"
#include "plan.h"

struct graph;

/* Loads the engine; ends the program where there is none. */
void tflite_open(void);

/* Its version, e.g. "2.16.1". */
const char *tflite_version(void);

/* Whether it tells the times of single operators. */
int tflite_tells_ops(void);

/* A signature of a graph file ("": the first), loaded for a number of threads. `log`, unless it is NULL, hears of all operators. */
struct graph *graph_open(const char *file, const char *signature, int threads, struct op_log *log);

/* Frees all that was loaded. */
void graph_close(struct graph *graph);

/* Copies one input's bytes into it, which must be as many as the tensor has. */
void graph_set_input(struct graph *graph, const char *name, const void *data, size_t bytes);

/* All inputs of a plan. */
void graph_fill(struct graph *graph, const struct graph_plan *plan);

void graph_invoke(struct graph *graph);

/* Writes one output's bytes into a file. */
void graph_write_output(struct graph *graph, const char *name, const char *path);

/* Whether every float32 output is a finite number. */
int graph_is_finite(struct graph *graph);

#endif
