/* Times the graphs of a bundle with TensorFlow Lite, and writes docs/BENCH.md's JSON to stdout.
 *
 *     pocketvl-bench BUNDLE --json --variant V ... --threads N ... --runs N [--warmup N] [--duration S] [--samples] [--ops]
 *                    [--progress-lines]
 *
 * The options are those of `pocketvl-run bench`. Inputs are prepared by the computer (plan.h), so decoding, preprocessing and the
 * tokenizer are not among the stages. With --progress-lines "DONE/TOTAL timing" goes to stderr after each round.
 * With --ops it tells, last, which operators the graphs' time goes to, and what the machine can do at best.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conditions.h"
#include "failure.h"
#include "json.h"
#include "machine.h"
#include "peaks.h"
#include "plan.h"
#include "profile.h"
#include "statistics.h"
#include "tflite.h"

enum { MAX_NAMES = 64, MAX_STAGES = 8, MAX_THREADS = 256 };

struct options {
    const char *bundle, *variants[MAX_NAMES];
    int variant_count, threads[MAX_NAMES], thread_count, runs, warmup, samples, ops, progress;
    double duration;
};

/* One variant at one number of threads; the last of `stages` is the total. */
struct runner {
    const char *variant;
    int threads, stage_count, is_finite;
    struct graph_plan *plans[MAX_STAGES];
    struct graph *graphs[MAX_STAGES];
    struct profile *profiles[MAX_STAGES]; /* with --ops */
    struct times stages[MAX_STAGES + 1];
    double load_ms, first_ms, cold_start_ms, cpu, wall;
    struct times sustained, began; /* milliseconds of each answer, and when it began */
};

/* --- arguments --------------------------------------------------------------------------------------------------------- */

static int number(const char *option, const char *text, int least, int most) {
    char *end;
    long value = text ? strtol(text, &end, 10) : 0;
    if (!text || end == text || *end || value < least || value > most) {
        fprintf(stderr, "error: %s needs a number from %d to %d\n", option, least, most);
        exit(2);
    }
    return (int)value;
}

/* Each variant and each number of threads once. */
static void add_variant(struct options *options, const char *variant) {
    for (int i = 0; i < options->variant_count; i++) {
        if (!strcmp(options->variants[i], variant)) return;
    }
    if (options->variant_count == MAX_NAMES) fail("more than %d variants", MAX_NAMES);
    options->variants[options->variant_count++] = variant;
}

static void add_threads(struct options *options, int threads) {
    for (int i = 0; i < options->thread_count; i++) {
        if (options->threads[i] == threads) return;
    }
    if (options->thread_count == MAX_NAMES) fail("more than %d numbers of threads", MAX_NAMES);
    options->threads[options->thread_count++] = threads;
}

static struct options parse(char **arguments) {
    struct options options = {.runs = 30, .warmup = 1};
    while (*arguments) {
        const char *option = *arguments++;
        if (*option != '-') options.bundle = option;
        else if (!strcmp(option, "--json")) continue; /* there is no other output */
        else if (!strcmp(option, "--samples")) options.samples = 1;
        else if (!strcmp(option, "--ops")) options.ops = 1;
        else if (!strcmp(option, "--progress-lines")) options.progress = 1;
        else if (!*arguments) fail("%s needs a value", option);
        else if (!strcmp(option, "--variant")) add_variant(&options, *arguments++);
        else if (!strcmp(option, "--threads")) add_threads(&options, number(option, *arguments++, 1, MAX_THREADS));
        else if (!strcmp(option, "--runs")) options.runs = number(option, *arguments++, 1, 1000000);
        else if (!strcmp(option, "--warmup")) options.warmup = number(option, *arguments++, 0, 1000000);
        else if (!strcmp(option, "--duration")) options.duration = atof(*arguments++);
        else fail("unknown option %s", option);
    }
    if (!options.bundle || !options.variant_count || !options.thread_count) {
        fputs("usage: pocketvl-bench BUNDLE --json --variant V ... --threads N ... --runs N [--warmup N] [--duration S] [--samples] [--ops] [--progress-lines]\n", stderr);
        exit(2);
    }
    return options;
}

/* --- running ----------------------------------------------------------------------------------------------------------- */

static void load(struct runner *runner, struct plan *plan) {
    double start = wall_seconds();
    for (int i = 0; i < plan->graph_count; i++) {
        struct graph_plan *of = &plan->graphs[i];
        if (strcmp(of->variant, runner->variant)) continue;
        if (runner->stage_count == MAX_STAGES) fail("variant %s has more than %d graphs", runner->variant, MAX_STAGES);
        runner->plans[runner->stage_count] = of;
        runner->graphs[runner->stage_count++] = graph_open(of->file, of->signature, runner->threads, NULL);
    }
    if (!runner->stage_count) fail("the bundle has no variant %s that TFLite runs", runner->variant);
    runner->load_ms = 1000 * (wall_seconds() - start);
    runner->first_ms = runner->cold_start_ms = NAN;
    runner->is_finite = 1;
}

/* One answer; `stage_ms` gets what each stage took, and behind them the total. */
static void answer(struct runner *runner, double *stage_ms) {
    double start = wall_seconds(), last = start;
    for (int i = 0; i < runner->stage_count; i++) {
        graph_fill(runner->graphs[i], runner->plans[i]);
        graph_invoke(runner->graphs[i]);
        double now = wall_seconds();
        stage_ms[i] = 1000 * (now - last);
        last = now;
    }
    stage_ms[runner->stage_count] = 1000 * (last - start);
}

static void run_once(struct runner *runner, int counts) {
    double stage_ms[MAX_STAGES + 1], cpu = cpu_seconds(), wall = wall_seconds();
    answer(runner, stage_ms);
    if (isnan(runner->first_ms)) {
        runner->first_ms = stage_ms[runner->stage_count];
        runner->cold_start_ms = 1000 * process_age_seconds();
        for (int i = 0; i < runner->stage_count; i++) {
            struct graph_plan *plan = runner->plans[i];
            runner->is_finite &= graph_is_finite(runner->graphs[i]);
            for (int j = 0; j < plan->output_count; j++) {
                graph_write_output(runner->graphs[i], plan->outputs[j].name, plan->outputs[j].path);
            }
        }
    }
    if (!counts) return;
    runner->cpu += cpu_seconds() - cpu;
    runner->wall += wall_seconds() - wall;
    for (int i = 0; i <= runner->stage_count; i++) times_add(&runner->stages[i], stage_ms[i]);
}

static void sustain(struct runner *runner, double duration) {
    double stage_ms[MAX_STAGES + 1], start = wall_seconds(), now;
    while ((now = wall_seconds()) - start < duration) {
        answer(runner, stage_ms);
        times_add(&runner->began, now);
        times_add(&runner->sustained, stage_ms[runner->stage_count]);
        conditions_look();
    }
}

/* Which operators the time of all graphs goes to. Every graph is loaded once more, with the profiler. */
static void profile_all(struct runner *runners, int count, int progress) {
    int stages = 0, done = 0;
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < runners[i].stage_count; j++, stages++) {
            runners[i].profiles[j] = profile_open(runners[i].plans[j], runners[i].graphs[j], runners[i].threads);
        }
    }
    for (int round = 0; round < PROFILE_ROUNDS; round++) {
        for (int i = 0; i < count; i++) {
            for (int j = 0; j < runners[i].stage_count; j++) {
                profile_round(runners[i].profiles[j]);
                conditions_look();
                if (progress) fprintf(stderr, "%d/%d timing operators\n", ++done, PROFILE_ROUNDS * stages);
            }
        }
    }
}

/* --- writing ----------------------------------------------------------------------------------------------------------- */

static void write_latency(const struct times *times, int samples) {
    static const struct {
        const char *name;
        double p;
    } figures[] = {{"p10", 10}, {"median", 50}, {"p90", 90}, {"p99", 99}, {"max", 100}};
    double *sorted = times_sorted(times);
    putchar('{');
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        json_key(figures[i].name);
        json_number(percentile(sorted, times->count, figures[i].p));
        fputs(", ", stdout);
    }
    printf("\"n\": %d", times->count);
    if (samples) fputs(", \"samples\": [", stdout);
    for (int i = 0; samples && i < times->count; i++) {
        json_comma(i);
        json_number(times->values[i]);
    }
    fputs(samples ? "]}" : "}", stdout);
    free(sorted);
}

static void write_timing(const struct runner *runner, int samples, int alone) {
    printf("{\"threads\": %d, \"load_ms\": ", runner->threads);
    json_number(runner->load_ms);
    fputs(", \"first_ms\": ", stdout);
    json_number(runner->first_ms);
    fputs(", \"busy_threads\": ", stdout);
    json_number(runner->cpu / runner->wall);
    if (alone && isfinite(runner->cold_start_ms)) {
        fputs(", \"cold_start_ms\": ", stdout);
        json_number(runner->cold_start_ms);
    }
    fputs(", \"stages\": {", stdout);
    for (int i = 0; i <= runner->stage_count; i++) {
        json_comma(i);
        json_key(i < runner->stage_count ? runner->plans[i]->stage : "total");
        write_latency(&runner->stages[i], samples);
    }
    fputs("}}", stdout);
}

static void write_graphs(const char *variant, struct runner *runners, int count) {
    int n = 0;
    fputs(", \"graphs\": [", stdout);
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < runners[i].stage_count && !strcmp(runners[i].variant, variant); j++) {
            json_comma(n++);
            profile_write(runners[i].profiles[j]);
        }
    }
    putchar(']');
}

static void write_peaks(const struct options *options, struct plan *plan) {
    fputs(", \"peaks\": [", stdout);
    for (int i = 0; i < options->thread_count; i++) {
        json_comma(i);
        peak_write(plan, options->threads[i]);
    }
    putchar(']');
    double cache = largest_cache_bytes();
    if (isfinite(cache)) printf(", \"cache_bytes\": %.0f", cache);
}

static void write_variant(const char *variant, struct runner *runners, int count, int samples, double peak, double steady) {
    int is_finite = 1, n = 0;
    json_key(variant);
    fputs("{\"engine\": {\"name\": \"org.tensorflow:tensorflow-lite\", \"version\": ", stdout);
    json_string(tflite_version());
    fputs("}, \"timings\": [", stdout);
    for (int i = 0; i < count; i++) {
        if (strcmp(runners[i].variant, variant)) continue;
        json_comma(n++);
        write_timing(&runners[i], samples, count == 1);
        is_finite &= runners[i].is_finite;
    }
    fputs("], \"peak_memory_bytes\": ", stdout);
    if (count == 1 && isfinite(peak)) printf("%.0f", peak);
    else fputs("null", stdout);
    if (count == 1 && isfinite(steady)) printf(", \"steady_memory_bytes\": %.0f", steady);
    printf(", \"notes\": [%s]", is_finite ? "" : "\"its outputs hold NaN or infinity\"");
    if (runners->profiles[0]) write_graphs(variant, runners, count);
    putchar('}');
}

static double median_between(const struct runner *runner, double from, double to, int *n) {
    struct times inside = {0};
    for (int i = 0; i < runner->sustained.count; i++) {
        if (runner->began.values[i] >= from && runner->began.values[i] < to) times_add(&inside, runner->sustained.values[i]);
    }
    double median = times_percentile(&inside, 50);
    *n = inside.count;
    free(inside.values);
    return median;
}

/* Ten windows, none shorter than a second; first and last are minutes where the load took at least two. */
static void write_sustained(const struct runner *runner, double duration) {
    double start = runner->began.values[0], width = fmax(1, duration / 10), end = start;
    double first = NAN, last = NAN;
    int written = 0, n;
    printf("{\"variant\": \"%s\", \"threads\": %d, \"duration_s\": %.9g, \"windows\": [", runner->variant, runner->threads, duration);
    for (int window = 0; window * width < duration; window++) {
        double from = start + window * width, to = from + width;
        double median = median_between(runner, from, to, &n);
        if (!n) continue; /* one answer took longer than a window */
        json_comma(written++);
        printf("{\"at_s\": %.9g, \"median_ms\": %.9g, \"n\": %d, \"mhz\": ", from - start, median, n);
        json_number(conditions_mhz(from, to));
        fputs(", \"temperature_c\": ", stdout);
        json_number(conditions_celsius(from, to));
        putchar('}');
        if (isnan(first)) first = median;
        last = median;
        end = to;
    }
    if (duration >= 120) {
        first = median_between(runner, start, start + 60, &n);
        double late = median_between(runner, end - 60, end, &n);
        if (n) last = late;
    }
    printf("], \"first_ms\": %.9g, \"last_ms\": %.9g, \"slowdown\": %.9g}", first, last, last / first);
}

static void write_result(const struct options *options, struct plan *plan, struct runner *runners, int count, double peak, double steady) {
    fputs("{\"format\": \"pocketvl-bench\", \"version\": \"1.2\", \"tool\": {\"name\": \"pocketvl-bench\", \"version\": \"1\"}, \"machine\": ", stdout);
    machine_write();
    fputs(", \"bundle\": {\"name\": ", stdout);
    json_string(plan->name);
    printf(", \"manifest_file_sha256\": \"%s\"}", plan->manifest_sha256);
    printf(", \"settings\": {\"runs\": %d, \"warmup_runs\": %d, \"interleaved\": true, \"seed\": null, \"inputs\": \"prepared\"}", options->runs, options->warmup);
    fputs(", \"variants\": {", stdout);
    for (int i = 0; i < options->variant_count; i++) {
        json_comma(i);
        write_variant(options->variants[i], runners, count, options->samples, peak, steady);
    }
    fputs("}, \"conditions\": ", stdout);
    conditions_write();
    if (options->duration > 0) {
        fputs(", \"sustained\": [", stdout);
        for (int i = 0, n = 0; i < count; i++) {
            if (!runners[i].sustained.count) continue;
            json_comma(n++);
            write_sustained(&runners[i], options->duration);
        }
        putchar(']');
    }
    if (options->ops) write_peaks(options, plan);
    fputs("}\n", stdout);
}

/* All pairs of variant and number of threads. */
static struct runner *runners_of(const struct options *options) {
    struct runner *runners = allocate(sizeof *runners * (size_t)(options->variant_count * options->thread_count));
    for (int i = 0; i < options->variant_count * options->thread_count; i++) {
        runners[i].variant = options->variants[i / options->thread_count];
        runners[i].threads = options->threads[i % options->thread_count];
    }
    return runners;
}

int main(int argc, char **argv) {
    (void)argc;
    struct options options = parse(argv + 1);
    tflite_open();
    struct plan *plan = plan_read(options.bundle);
    struct runner *runners = runners_of(&options);
    int count = options.variant_count * options.thread_count;
    for (int i = 0; i < count; i++) load(&runners[i], plan);
    for (int round = 0; round < options.warmup + options.runs; round++) {
        if (round >= options.warmup) conditions_look();
        for (int i = 0; i < count; i++) run_once(&runners[i], round >= options.warmup);
        if (options.progress) fprintf(stderr, "%d/%d timing\n", round + 1, options.warmup + options.runs);
    }
    conditions_look();
    double steady = status_bytes("VmRSS"), peak = fmax(steady, status_bytes("VmHWM")); /* the kernel counts the two apart */
    int most = 0;
    for (int i = 0; i < count; i++) most = runners[i].threads > most ? runners[i].threads : most;
    for (int i = 0; options.duration > 0 && i < count; i++) {
        if (runners[i].threads == most) sustain(&runners[i], options.duration);
    }
    if (options.ops) profile_all(runners, count, options.progress);
    conditions_end();
    write_result(&options, plan, runners, count, peak, steady);
    return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
