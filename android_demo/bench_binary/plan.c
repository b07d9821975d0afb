#include "plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"

enum { FIELDS = 6 };

static char *joined(const char *folder, const char *between, const char *name) {
    size_t size = strlen(folder) + strlen(between) + strlen(name) + 1;
    char *path = allocate(size);
    snprintf(path, size, "%s%s%s", folder, between, name);
    return path;
}

/* A whole file, with a NUL behind it. */
static char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file) fail("%s cannot be read (%s)", path, strerror(errno));
    char *data = NULL;
    size_t got;
    *bytes = 0;
    do {
        data = reallocate(data, *bytes + (1 << 16) + 1);
        got = fread(data + *bytes, 1, 1 << 16, file);
        *bytes += got;
    } while (got > 0);
    if (ferror(file)) fail("%s cannot be read", path);
    fclose(file);
    data[*bytes] = '\0';
    return data;
}

/* Splits a line at its tabs; returns how many fields it has. */
static int split(char *line, char *fields[FIELDS]) {
    int count = 0;
    for (char *field = line; field && count < FIELDS; count++) {
        fields[count] = field;
        field = strchr(field, '\t');
        if (field) *field++ = '\0';
    }
    return count;
}

static void read_line(struct plan *plan, const char *bundle, const char *folder, char *fields[FIELDS], int count) {
    struct graph_plan *last = plan->last;
    if (!strcmp(fields[0], "bundle") && count == 3) {
        plan->name = fields[1];
        plan->manifest_sha256 = fields[2];
    } else if (!strcmp(fields[0], "graph") && count == 6 && plan->graph_count < MAX_GRAPHS) {
        struct graph_plan *graph = plan->last = &plan->graphs[plan->graph_count++];
        graph->variant = fields[1];
        graph->stage = fields[2];
        graph->component = fields[3];
        graph->file = joined(bundle, "/", fields[4]);
        graph->signature = fields[5];
    } else if (!strcmp(fields[0], "peak") && count == 4 && plan->peak_count < MAX_PEAKS) {
        struct graph_plan *graph = plan->last = &plan->peaks[plan->peak_count++];
        graph->variant = fields[1];
        graph->file = joined(folder, "/", fields[2]);
        graph->signature = "";
        graph->multiply_adds = atof(fields[3]);
    } else if (!strcmp(fields[0], "input") && count == 3 && last && last->input_count < MAX_PORTS) {
        struct input *input = &last->inputs[last->input_count++];
        char *path = joined(folder, "/", fields[2]);
        input->name = fields[1];
        input->data = read_file(path, &input->bytes);
        free(path);
    } else if (!strcmp(fields[0], "output") && count == 3 && last && last->output_count < MAX_PORTS) {
        last->outputs[last->output_count++] = (struct output){fields[1], joined(folder, "/", fields[2])};
    } else {
        fail("%s/plan has a line that this program does not know: %s", folder, fields[0]);
    }
}

struct plan *plan_read(const char *bundle) {
    char *folder = joined(bundle, ".inputs", "");
    char *path = joined(folder, "/", "plan");
    size_t bytes;
    char *rest = read_file(path, &bytes); /* stays: the plan's strings lie in it */
    struct plan *plan = allocate(sizeof *plan);
    char *line = strsep(&rest, "\n");
    if (strcmp(line, "pocketvl-bench-plan 2")) fail("%s is no plan that this program knows; build the program again", path);
    while ((line = strsep(&rest, "\n")) != NULL) {
        char *fields[FIELDS];
        if (*line) read_line(plan, bundle, folder, fields, split(line, fields));
    }
    if (!plan->name || !plan->graph_count) fail("%s names no bundle or no graph", path);
    return plan;
}
