/* How the program ends where it cannot go on. */
#ifndef POCKETVL_FAILURE_H
#define POCKETVL_FAILURE_H

#include <stddef.h>

/* Writes one line to stderr and exits with 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Memory of zeros; never NULL. */
void *allocate(size_t bytes);

/* A larger place for what `memory` holds; never NULL. */
void *reallocate(void *memory, size_t bytes);

#endif
