/* What there is to run: a text file that the computer writes beside the bundle, so that no JSON is read here.
 *
 * BUNDLE.inputs/plan has one thing a line, its parts separated by tabs:
 *
 *     pocketvl-bench-plan 2
 *     bundle  NAME  SHA-256 of manifest.json
 *     graph   VARIANT  STAGE  COMPONENT  FILE, relative to the bundle  SIGNATURE, empty for the only one
 *     peak    NAME  FILE in BUNDLE.inputs  MULTIPLY-ADDS    (a graph that shows what the engine can do at best)
 *     input   NAME  FILE in BUNDLE.inputs, raw bytes        (of the graph above it)
 *     output  NAME  FILE in BUNDLE.inputs, which is written after the first answer
 */
#ifndef POCKETVL_PLAN_H
#define POCKETVL_PLAN_H

#include <stddef.h>

enum { MAX_GRAPHS = 256, MAX_PEAKS = 8, MAX_PORTS = 8 };

struct input {
    char *name;
    void *data;
    size_t bytes;
};

struct output {
    char *name, *path;
};

struct graph_plan {
    char *variant, *stage, *component, *file, *signature;
    double multiply_adds; /* of a peak, which has neither stage nor component */
    struct input inputs[MAX_PORTS];
    struct output outputs[MAX_PORTS];
    int input_count, output_count;
};

struct plan {
    char *name, *manifest_sha256;
    struct graph_plan graphs[MAX_GRAPHS], peaks[MAX_PEAKS];
    int graph_count, peak_count;
    struct graph_plan *last; /* read */
};

/* Reads a bundle's plan, and the files that it names. */
struct plan *plan_read(const char *bundle);

#endif
