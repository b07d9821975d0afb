#include "profile.h"

#include <math.h>
#include <stdio.h>

#include "failure.h"
#include "json.h"
#include "machine.h"
#include "ops.h"
#include "statistics.h"
#include "tflite.h"

/* As the runtime's op_profile.py has them: all runs of a graph take about so many seconds, half of them with the profiler. */
static const double SECONDS = 0.6;
enum { FEWEST_RUNS = 6, MOST_RUNS = 42, WARMUP_RUNS = 2, QUICK = 10 };

struct profile {
    struct graph_plan *plan;
    struct graph *plain, *profiled;
    struct op_log *log; /* NULL: the engine does not tell */
    int threads, runs;
    double cpu, wall;
    struct times plain_ms, profiled_ms;
};

static double run_ms(struct graph *graph) {
    double start = wall_seconds();
    graph_invoke(graph);
    return 1000 * (wall_seconds() - start);
}

struct profile *profile_open(struct graph_plan *plan, struct graph *plain, int threads) {
    struct profile *profile = allocate(sizeof *profile);
    profile->plan = plan;
    profile->threads = threads;
    profile->plain = plain;
    graph_fill(plain, plan);
    double one = INFINITY;
    for (int i = 0; i <= WARMUP_RUNS; i++) one = fmin(one, run_ms(plain));
    double fitting = fmin(fmax(1000 * SECONDS / 2 / fmax(one, 1e-3), FEWEST_RUNS), MOST_RUNS);
    profile->runs = ((int)fitting + PROFILE_ROUNDS - 1) / PROFILE_ROUNDS;
    if (tflite_tells_ops()) {
        profile->log = op_log_new();
        profile->profiled = graph_open(plan->file, plan->signature, threads, profile->log);
        graph_fill(profile->profiled, plan);
    }
    return profile;
}

void profile_round(struct profile *profile) {
    double cpu = cpu_seconds(), wall = wall_seconds();
    for (int i = 0; i < profile->runs; i++) times_add(&profile->plain_ms, run_ms(profile->plain));
    profile->cpu += cpu_seconds() - cpu;
    profile->wall += wall_seconds() - wall;
    if (!profile->log) return;
    op_log_pause(profile->log);
    for (int i = 0; i < WARMUP_RUNS; i++) graph_invoke(profile->profiled);
    for (int i = 0; i < profile->runs; i++) {
        op_log_begin_run(profile->log);
        times_add(&profile->profiled_ms, run_ms(profile->profiled));
    }
}

static const char *reason(const struct profile *profile) {
    if (!profile->log) return "this TFLite does not tell the times of single ops: it needs 2.14 or newer";
    return op_count(profile->log) ? NULL : "the graph has no op that takes time";
}

void profile_write(const struct profile *profile) {
    fputs("{\"component\": ", stdout);
    json_string(profile->plan->component);
    printf(", \"threads\": %d, \"runs\": %d, \"plain_ms\": ", profile->threads, profile->plain_ms.count);
    json_number(times_percentile(&profile->plain_ms, QUICK));
    fputs(", \"busy_threads\": ", stdout);
    json_number(profile->cpu / profile->wall);
    fputs(", \"profiled_ms\": ", stdout);
    json_number(times_percentile(&profile->profiled_ms, QUICK));
    fputs(", \"ops\": ", stdout);
    if (profile->log) ops_write(profile->log);
    else fputs("[]", stdout);
    fputs(", \"reason\": ", stdout);
    json_string(reason(profile));
    putchar('}');
}
