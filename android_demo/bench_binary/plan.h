/* What there is to run: a text file that the computer writes beside the bundle, so that no JSON is read here.
 *
 * BUNDLE.inputs/plan has one thing a line, its parts separated by tabs:
 *
 *     pocketvl-bench-plan 1
 *     bundle  NAME  SHA-256 of manifest.json
 *     graph   VARIANT  STAGE  FILE, relative to the bundle  SIGNATURE, empty for the only one
 *     input   NAME  FILE in BUNDLE.inputs, raw bytes        (of the graph above it)
 *     output  NAME  FILE in BUNDLE.inputs, which is written after the first answer
 */
#ifndef POCKETVL_PLAN_H
#define POCKETVL_PLAN_H

#include <stddef.h>

enum { MAX_GRAPHS = 256, MAX_PORTS = 8 };

struct input {
    char *name;
    void *data;
    size_t bytes;
};

struct output {
    char *name, *path;
};

struct graph_plan {
    char *variant, *stage, *file, *signature;
    struct input inputs[MAX_PORTS];
    struct output outputs[MAX_PORTS];
    int input_count, output_count;
};

struct plan {
    char *name, *manifest_sha256;
    struct graph_plan graphs[MAX_GRAPHS];
    int graph_count;
};

/* Reads a bundle's plan, and the files that it names. */
struct plan *plan_read(const char *bundle);

#endif
