#define _GNU_SOURCE
#include "conditions.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "failure.h"
#include "json.h"
#include "machine.h"

enum { MAX_PROCESSORS = 64, MAX_ZONES = 100 };
static const double INTERVAL = 1, SHORTEST = 0.05;

struct look {
    double at, busy, own, other_load, celsius, watts, mhz[MAX_PROCESSORS];
    int mhz_count;
};

static struct look *looks;
static int count;

/* Seconds of processor time that the whole machine has spent; NaN where /proc/stat is closed, as to Android's apps. */
static double machine_busy(void) {
    char line[256];
    double user, nice, system, idle, waiting, irq, softirq, stolen = 0;
    file_line("/proc/stat", line, sizeof line);
    if (sscanf(line, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &user, &nice, &system, &idle, &waiting, &irq, &softirq, &stolen) < 7) {
        return NAN;
    }
    return (user + nice + system + irq + softirq + stolen) / (double)sysconf(_SC_CLK_TCK);
}

/* What kernels call the zones of processors: cpu-0-0-usr, soc-thermal, x86_pkg_temp, BIG, LITTLE. */
static int is_processor(const char *type) {
    static const char *const names[] = {"cpu", "soc", "pkg", "big", "mid", "little", "cluster"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcasestr(type, names[i])) return 1;
    }
    return 0;
}

static double warmest(void) {
    char path[80], type[80];
    double found = NAN;
    for (int zone = 0; zone < MAX_ZONES; zone++) {
        snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/type", zone);
        file_line(path, type, sizeof type);
        if (!*type) break;
        if (!is_processor(type)) continue;
        snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", zone);
        found = fmax(found, file_number(path) / 1000);
    }
    return found;
}

/* What the battery gives, in watts; NaN while a charger feeds the phone too, for that is not metered. */
static double battery_watts(void) {
    char status[32];
    file_line("/sys/class/power_supply/battery/status", status, sizeof status);
    if (strcmp(status, "Discharging")) return NAN;
    return fabs(file_number("/sys/class/power_supply/battery/current_now") * file_number("/sys/class/power_supply/battery/voltage_now")) * 1e-12;
}

/* Looks, unless less than so many seconds have passed since the last look. */
static void look_after(double seconds) {
    double now = wall_seconds();
    struct look *before = count ? &looks[count - 1] : NULL;
    if (before && now - before->at < seconds) return;
    looks = reallocate(looks, sizeof *looks * (size_t)(count + 1));
    before = count ? &looks[count - 1] : NULL;
    struct look *look = &looks[count++];
    *look = (struct look){.at = now, .busy = machine_busy(), .own = cpu_seconds(), .celsius = warmest(), .watts = battery_watts()};
    look->other_load = before ? fmax(0, (look->busy - before->busy - (look->own - before->own)) / (now - before->at)) : NAN;
    if (before && isnan(look->busy - before->busy)) look->other_load = NAN; /* fmax prefers numbers */
    for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF) && look->mhz_count < MAX_PROCESSORS; cpu++) {
        char path[100];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", cpu);
        double mhz = file_number(path) / 1000;
        if (isfinite(mhz)) look->mhz[look->mhz_count++] = mhz;
    }
}

void conditions_look(void) { look_after(INTERVAL); }

void conditions_end(void) { look_after(SHORTEST); }

double conditions_mhz(double from, double to) {
    double sum = 0;
    int n = 0;
    for (int i = 0; i < count; i++) {
        for (int cpu = 0; looks[i].at >= from && looks[i].at < to && cpu < looks[i].mhz_count; cpu++, n++) sum += looks[i].mhz[cpu];
    }
    return n ? sum / n : NAN;
}

double conditions_celsius(double from, double to) {
    double sum = 0;
    int n = 0;
    for (int i = 0; i < count; i++) {
        if (looks[i].at < from || looks[i].at >= to || isnan(looks[i].celsius)) continue;
        sum += looks[i].celsius;
        n++;
    }
    return n ? sum / n : NAN;
}

static void write_look(const struct look *look) {
    fputs("{\"at_s\": ", stdout);
    json_number(look->at - looks[0].at);
    fputs(", \"mhz\": ", stdout);
    fputs(look->mhz_count ? "[" : "null", stdout);
    for (int cpu = 0; cpu < look->mhz_count; cpu++) {
        json_comma(cpu);
        json_number(look->mhz[cpu]);
    }
    if (look->mhz_count) putchar(']');
    fputs(", \"temperature_c\": ", stdout);
    json_number(look->celsius);
    fputs(", \"other_load\": ", stdout);
    json_number(look->other_load);
    fputs(", \"power_w\": ", stdout);
    json_number(look->watts);
    putchar('}');
}

void conditions_write(void) {
    double joules = 0, load = 0;
    int loads = 0;
    printf("{\"interval_s\": %g, \"samples\": [", INTERVAL);
    for (int i = 0; i < count; i++) {
        json_comma(i);
        write_look(&looks[i]);
        if (i) joules += (looks[i].watts + looks[i - 1].watts) / 2 * (looks[i].at - looks[i - 1].at);
        if (isfinite(looks[i].other_load)) {
            load += looks[i].other_load;
            loads++;
        }
    }
    fputs("], \"throttled\": null, \"energy_j\": ", stdout);
    json_number(count > 1 ? joules : NAN);
    fputs(", \"warnings\": [", stdout);
    if (loads && load / loads > 0.25 * usable_processors()) {
        printf("\"other programs kept %.1f of %d processors busy: figures may be too high\"", load / loads, usable_processors());
    }
    fputs("]}", stdout);
}
