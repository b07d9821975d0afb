/* Times that were taken one after the other, and what is told of them. */
#ifndef POCKETVL_STATISTICS_H
#define POCKETVL_STATISTICS_H

struct times {
    double *values;
    int count;
};

void times_add(struct times *times, double value);

/* The values in order, in memory of the caller's. */
double *times_sorted(const struct times *times);

/* A percentile of sorted values, interpolated as docs/BENCH.md says. */
double percentile(const double *sorted, int count, double p);

/* A percentile of times in any order; NaN of none. */
double times_percentile(const struct times *times, double p);

/* The mean of the quicker half: what interrupts a call only ever makes it slower. */
double mean_of_quicker_half(const struct times *times);

#endif
