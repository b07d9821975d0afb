#define _GNU_SOURCE
#include "peaks.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "failure.h"
#include "json.h"
#include "machine.h"
#include "tflite.h"

static const double SECONDS = 0.1;
enum { FEWEST_CALLS = 3, CACHED_BYTES = 128 << 10, MEMORY_BYTES = 64 << 20, LEAST_BYTES = 8 << 20, MOST_CACHES = 10 };

/* Billions of multiply-adds a second of the quickest of as many runs as fit. */
static double gmacs_per_s(struct graph_plan *plan, int threads) {
    struct graph *graph = graph_open(plan->file, plan->signature, threads, NULL);
    graph_fill(graph, plan);
    double quickest = INFINITY, end = wall_seconds() + SECONDS;
    for (int calls = 0; calls < FEWEST_CALLS || wall_seconds() < end; calls++) {
        double start = wall_seconds();
        graph_invoke(graph);
        quickest = fmin(quickest, wall_seconds() - start);
    }
    graph_close(graph);
    return plan->multiply_adds / quickest / 1e9;
}

struct copier {
    pthread_barrier_t *both;
    char *source, *target;
    size_t bytes, repeats;
    volatile int *is_over;
};

static void copy(const struct copier *copier) {
    for (size_t i = 0; i < copier->repeats; i++) memcpy(copier->target, copier->source, copier->bytes);
}

/* A thread beside the first: it copies between two meetings of all threads, until it is told that all is over. */
static void *copy_beside(void *given) {
    struct copier *copier = given;
    while (pthread_barrier_wait(copier->both), !*copier->is_over) {
        copy(copier);
        pthread_barrier_wait(copier->both);
    }
    return NULL;
}

/* Bytes read and written, 1e9 a second, by copying an array of so many bytes in every thread. */
static double gb_per_s(size_t bytes, int threads) {
    struct copier *copiers = allocate(sizeof *copiers * (size_t)threads);
    pthread_t *others = allocate(sizeof *others * (size_t)threads);
    pthread_barrier_t both;
    volatile int is_over = 0;
    pthread_barrier_init(&both, NULL, (unsigned)threads);
    size_t repeats = bytes < LEAST_BYTES ? LEAST_BYTES / bytes : 1; /* enough to do before the threads meet */
    for (int i = 0; i < threads; i++) {
        copiers[i] = (struct copier){&both, reallocate(NULL, bytes), reallocate(NULL, bytes), bytes, repeats, &is_over};
        memset(copiers[i].source, 1, bytes);
        memset(copiers[i].target, 0, bytes);
        if (i && pthread_create(&others[i], NULL, copy_beside, &copiers[i])) fail("no %d threads can be started", threads);
    }
    double quickest = INFINITY, end = wall_seconds() + SECONDS;
    for (int calls = 0; calls < FEWEST_CALLS || wall_seconds() < end; calls++) {
        pthread_barrier_wait(&both);
        double start = wall_seconds();
        copy(&copiers[0]);
        pthread_barrier_wait(&both);
        quickest = fmin(quickest, wall_seconds() - start);
    }
    is_over = 1;
    pthread_barrier_wait(&both);
    for (int i = 0; i < threads; i++) {
        if (i) pthread_join(others[i], NULL);
        free(copiers[i].source);
        free(copiers[i].target);
    }
    pthread_barrier_destroy(&both);
    free(copiers);
    free(others);
    return 2.0 * (double)(bytes * repeats) * threads / quickest / 1e9;
}

void peak_write(struct plan *plan, int threads) {
    printf("{\"threads\": %d, \"gmacs_per_s\": {", threads);
    for (int i = 0; i < plan->peak_count; i++) {
        json_comma(i);
        json_key(plan->peaks[i].variant);
        json_number(gmacs_per_s(&plan->peaks[i], threads));
    }
    fputs("}, \"cached_gb_per_s\": ", stdout);
    json_number(gb_per_s(CACHED_BYTES, threads));
    fputs(", \"memory_gb_per_s\": ", stdout);
    json_number(gb_per_s(MEMORY_BYTES, threads));
    putchar('}');
}

double largest_cache_bytes(void) {
    char path[80], size[32];
    double most = NAN;
    for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++) { /* a phone's processors differ */
        for (int index = 0; index < MOST_CACHES; index++) {
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/size", cpu, index);
            file_line(path, size, sizeof size);
            if (!*size) continue;
            most = fmax(most, atof(size) * (strchr(size, 'K') ? 1 << 10 : strchr(size, 'M') ? 1 << 20 : 1));
        }
    }
    return most;
}
