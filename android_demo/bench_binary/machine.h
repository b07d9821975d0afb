/* What the kernel tells of this machine and this process. */
#ifndef POCKETVL_MACHINE_H
#define POCKETVL_MACHINE_H

/* The object `machine` of a bench result. */
void machine_write(void);

/* Processors that this process may run on. */
int usable_processors(void);

/* Seconds since some moment, and processor time of this process so far. */
double wall_seconds(void);
double cpu_seconds(void);

/* Seconds since this process began, to a hundredth; NaN: not known. */
double process_age_seconds(void);

/* A line of /proc/self/status in bytes ("VmHWM:", "VmRSS:"); NaN: not known. */
double status_bytes(const char *key);

/* The first number in a file of the kernel; NaN: it cannot be read. */
double file_number(const char *path);

/* The first line of a file of the kernel; empty: it cannot be read. */
void file_line(const char *path, char *line, int size);

#endif
