/* JSON on stdout. Every function writes what is between two commas; `json_comma` writes these. */
#ifndef POCKETVL_JSON_H
#define POCKETVL_JSON_H

/* A string, quoted and escaped; bytes that are not ASCII become '?'. NULL and "" are null. */
void json_string(const char *text);

/* A number; NaN is null. */
void json_number(double value);

/* The key of what follows. */
void json_key(const char *name);

/* A comma, but before the first item: `int n = 0; ... json_comma(n++)`. */
void json_comma(int is_not_first);

#endif
