#include "statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "failure.h"

void times_add(struct times *times, double value) {
    if (!(times->count & (times->count - 1))) { /* full: sizes are powers of two */
        times->values = reallocate(times->values, sizeof *times->values * (size_t)(times->count ? 2 * times->count : 1));
    }
    times->values[times->count++] = value;
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double *times_sorted(const struct times *times) {
    double *sorted = allocate(sizeof *sorted * (size_t)times->count);
    memcpy(sorted, times->values, sizeof *sorted * (size_t)times->count);
    qsort(sorted, (size_t)times->count, sizeof *sorted, by_size);
    return sorted;
}

double percentile(const double *sorted, int count, double p) {
    double place = p / 100 * (count - 1);
    int below = (int)place, above = below + 1 < count ? below + 1 : below;
    return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

double times_percentile(const struct times *times, double p) {
    if (!times->count) return NAN;
    double *sorted = times_sorted(times);
    double found = percentile(sorted, times->count, p);
    free(sorted);
    return found;
}

double mean_of_quicker_half(const struct times *times) {
    double *sorted = times_sorted(times), sum = 0;
    int half = times->count > 1 ? times->count / 2 : 1;
    for (int i = 0; i < half; i++) sum += sorted[i];
    free(sorted);
    return sum / half;
}
