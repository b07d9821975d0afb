#define _GNU_SOURCE
#include "machine.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "json.h"

enum { LINE = 8192, MAX_GOVERNORS = 16 };

void file_line(const char *path, char *line, int size) {
    FILE *file = fopen(path, "r");
    *line = '\0';
    if (!file) return;
    if (!fgets(line, size, file)) *line = '\0';
    line[strcspn(line, "\n")] = '\0';
    fclose(file);
}

double file_number(const char *path) {
    char line[64], *end;
    file_line(path, line, sizeof line);
    double value = strtod(line, &end);
    return end == line ? NAN : value;
}

static double clock_seconds(clockid_t clock) {
    struct timespec time;
    return clock_gettime(clock, &time) ? NAN : (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

double wall_seconds(void) { return clock_seconds(CLOCK_MONOTONIC); }

double cpu_seconds(void) { return clock_seconds(CLOCK_PROCESS_CPUTIME_ID); }

double process_age_seconds(void) {
    char line[LINE];
    unsigned long long start;
    file_line("/proc/self/stat", line, sizeof line);
    char *name_end = strrchr(line, ')'); /* the name may hold blanks and brackets; 19 fields lie between it and the start */
    if (!name_end || sscanf(name_end + 1, " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &start) != 1) {
        return NAN;
    }
    return clock_seconds(CLOCK_BOOTTIME) - (double)start / (double)sysconf(_SC_CLK_TCK);
}

/* What follows a key in a file of lines like "key : value"; empty: there is none. */
static void field(const char *path, const char *key, char *value, size_t size) {
    static char line[LINE];
    FILE *file = fopen(path, "r");
    *value = '\0';
    while (file && !*value && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        size_t length = strlen(key);
        if (!colon || strncmp(line, key, length) || line + length + strspn(line + length, " \t") != colon) continue;
        snprintf(value, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
        value[strcspn(value, "\n")] = '\0';
    }
    if (file) fclose(file);
}

double status_bytes(const char *key) {
    char value[64];
    field("/proc/self/status", key, value, sizeof value);
    return *value ? 1024 * atof(value) : NAN;
}

int usable_processors(void) {
    cpu_set_t allowed;
    return sched_getaffinity(0, sizeof allowed, &allowed) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&allowed);
}

static int has(const char *flags, const char *flag) {
    size_t length = strlen(flag);
    for (const char *at = flags; (at = strstr(at, flag)) != NULL; at += length) {
        if ((at == flags || at[-1] == ' ') && (at[length] == ' ' || !at[length])) return 1;
    }
    return 0;
}

/* As docs/BENCH.md names instruction sets. */
static const char *instruction_set(const char *architecture, char *buffer, size_t size) {
    static char flags[LINE];
    static const char *const x86[][2] = {{"avx512_vnni", "avx512_vnni"}, {"avx_vnni", "avx_vnni"}, {"avx512bw", "avx512"},
                                         {"avx2", "avx2"}, {"avx", "avx"}};
    if (!strcmp(architecture, "aarch64")) {
        field("/proc/cpuinfo", "Features", flags, sizeof flags);
        snprintf(buffer, size, "neon%s%s", has(flags, "asimddp") ? "+dotprod" : "", has(flags, "i8mm") ? "+i8mm" : "");
        return buffer;
    }
    field("/proc/cpuinfo", "flags", flags, sizeof flags);
    for (size_t i = 0; i < sizeof x86 / sizeof *x86; i++) {
        if (!strcmp(architecture, "x86_64") && has(flags, x86[i][0])) {
            snprintf(buffer, size, "%s%s", x86[i][1], has(flags, "amx_int8") ? "+amx" : "");
            return buffer;
        }
    }
    return architecture;
}

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

static void write_governors(void) {
    char names[MAX_GOVERNORS][32], path[100], name[32];
    int count = 0;
    for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", cpu);
        file_line(path, name, sizeof name);
        int known = !*name || count == MAX_GOVERNORS;
        for (int i = 0; i < count; i++) known |= !strcmp(names[i], name);
        if (!known) strcpy(names[count++], name);
    }
    qsort(names, (size_t)count, sizeof *names, by_name);
    putchar('[');
    for (int i = 0; i < count; i++) {
        json_comma(i);
        json_string(names[i]);
    }
    putchar(']');
}

static double highest_mhz(void) {
    double highest = NAN;
    char path[100];
    for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", cpu);
        highest = fmax(highest, file_number(path) / 1000);
    }
    return highest;
}

void machine_write(void) {
    struct utsname system;
    char cpu[200], isa[64], device[200];
    uname(&system);
    const char *set = instruction_set(system.machine, isa, sizeof isa);
    field("/proc/cpuinfo", "model name", cpu, sizeof cpu);
    if (!*cpu) field("/proc/cpuinfo", "Hardware", cpu, sizeof cpu);
    file_line("/proc/device-tree/model", device, sizeof device);
    if (!*device) file_line("/sys/class/dmi/id/product_name", device, sizeof device);
    fputs("{\"device\": ", stdout);
    json_string(device);
    fputs(", \"cpu\": ", stdout);
    json_string(*cpu ? cpu : system.machine);
    fputs(", \"architecture\": ", stdout);
    json_string(system.machine);
    fputs(", \"isa\": ", stdout);
    json_string(set);
    int exact = !strcmp(system.machine, "aarch64") || strstr(set, "_vnni") || !strncmp(system.machine, "arm", 3);
    printf(", \"exact_int8\": %s, \"processors\": %ld, \"usable_processors\": %d, \"memory_bytes\": %lld, \"os\": ",
           exact ? "true" : "false", sysconf(_SC_NPROCESSORS_CONF), usable_processors(),
           (long long)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE));
    char os[140];
    snprintf(os, sizeof os, "%s %s", system.sysname, system.release);
    json_string(os);
    fputs(", \"governors\": ", stdout);
    write_governors();
    double mhz = highest_mhz();
    if (isfinite(mhz)) printf(", \"mhz_max\": %.9g", mhz);
    putchar('}');
}
