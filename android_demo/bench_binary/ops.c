#include "ops.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "failure.h"
#include "json.h"
#include "machine.h"
#include "statistics.h"

enum { DEEPEST = 16, NONE = -1 };

/* An operator at one place of a run. Those of the delegate have no node, and are told apart by their order. */
struct op {
    char *type;
    int64_t node, subgraph;
    int order, partition, calls, calls_in_run, last_run;
    struct times us; /* of all its calls in a run */
};

/* A kernel that runs, and its place in the log: callers come before what they call. */
struct kernel {
    int place;
    int64_t subgraph;
    double start, called_us;
    int is_delegate;
};

struct op_log {
    struct op *ops;
    int count, next, run, keeps, order, partition, depth;
    struct kernel running[DEEPEST];
};

struct op_log *op_log_new(void) { return allocate(sizeof(struct op_log)); }

void op_log_begin_run(struct op_log *log) {
    log->run++;
    log->keeps = 1;
    log->next = log->order = log->depth = 0;
    log->partition = NONE;
}

void op_log_pause(struct op_log *log) { log->keeps = 0; }

static int is_same(const struct op *a, const struct op *b) {
    return a->node == b->node && a->subgraph == b->subgraph && a->order == b->order && !strcmp(a->type, b->type);
}

/* The operator's place in the log. Runs are alike, so it is mostly the one behind the last that was told of. */
static int place_of(struct op_log *log, const struct op *told) {
    if (log->next < log->count && is_same(&log->ops[log->next], told)) return log->next++;
    for (int i = 0; i < log->count; i++) {
        if (is_same(&log->ops[i], told)) return (log->next = i + 1) - 1;
    }
    log->ops = reallocate(log->ops, sizeof *log->ops * (size_t)(log->count + 1));
    struct op *op = &log->ops[log->count++];
    *op = *told;
    op->type = strcpy(allocate(strlen(told->type) + 1), told->type); /* the engine's may be gone after the run */
    log->next = log->count;
    return log->count - 1;
}

static void keep(struct op_log *log, int place, double us) {
    struct op *op = &log->ops[place];
    if (op->last_run != log->run) {
        op->last_run = log->run;
        op->calls_in_run = 0;
        times_add(&op->us, 0);
    }
    op->us.values[op->us.count - 1] += us;
    op->calls_in_run++;
    if (op->calls_in_run > op->calls) op->calls = op->calls_in_run;
}

void op_begin(struct op_log *log, const char *type, int64_t node, int64_t subgraph) {
    if (!log->keeps) return;
    if (log->depth == DEEPEST) fail("more than %d graphs call each other", DEEPEST);
    struct op told = {.type = (char *)type, .node = node, .subgraph = subgraph, .order = NONE, .partition = NONE};
    log->running[log->depth++] = (struct kernel){.place = place_of(log, &told), .subgraph = subgraph, .start = wall_seconds()};
}

void op_end(struct op_log *log) {
    if (!log->keeps || !log->depth) return;
    const struct kernel *kernel = &log->running[--log->depth];
    double us = 1e6 * (wall_seconds() - kernel->start);
    if (log->depth) log->running[log->depth - 1].called_us += us;
    if (kernel->is_delegate) return; /* its operators were told of one by one */
    keep(log, kernel->place, fmax(0, us - kernel->called_us));
}

void op_delegated(struct op_log *log, const char *type, uint64_t us, int64_t index, int64_t subgraph) {
    if (!log->keeps) return;
    struct kernel *kernel = log->depth ? &log->running[log->depth - 1] : NULL;
    if (kernel && kernel->subgraph == subgraph) kernel->is_delegate = 1;
    else if (kernel) kernel->called_us += (double)us; /* of a loop, say: not all versions tell when a delegate begins */
    struct op told = {.type = (char *)type, .node = NONE, .subgraph = subgraph, .order = NONE, .partition = NONE};
    if (!subgraph) {
        if (!index || log->partition == NONE) log->partition++;
        told.partition = log->partition;
        told.order = log->order++;
    }
    keep(log, place_of(log, &told), (double)us);
}

/* A place without times is a delegate's, whose operators stand for it. */
static int has_times(const struct op *op) { return op->us.count > 0; }

int op_count(const struct op_log *log) {
    int count = 0;
    for (int i = 0; i < log->count; i++) count += has_times(&log->ops[i]);
    return count;
}

static void op_write(const struct op *op) {
    fputs("{\"type\": ", stdout);
    json_string(op->type);
    printf(", \"unit\": \"%s\", \"ms\": ", op->node == NONE ? "xnnpack" : "builtin");
    json_number(mean_of_quicker_half(&op->us) / 1000);
    if (op->subgraph) printf(", \"name\": \"subgraph %lld\"", (long long)op->subgraph);
    if (op->calls > 1) printf(", \"calls\": %d", op->calls);
    if (op->partition != NONE) printf(", \"partition\": %d", op->partition);
    if (op->node != NONE) printf(", \"node\": %lld", (long long)op->node);
    putchar('}');
}

void ops_write(const struct op_log *log) {
    putchar('[');
    for (int i = 0, n = 0; i < log->count; i++) {
        if (!has_times(&log->ops[i])) continue;
        json_comma(n++);
        op_write(&log->ops[i]);
    }
    putchar(']');
}
