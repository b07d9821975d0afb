#include "json.h"

#include <math.h>
#include <stdio.h>

void json_string(const char *text) {
    if (!text || !*text) {
        fputs("null", stdout);
        return;
    }
    putchar('"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c < 0x20) printf("\\u%04x", c);
        else putchar(c < 0x7f ? c : '?');
    }
    putchar('"');
}

void json_number(double value) {
    if (isfinite(value)) printf("%.9g", value);
    else fputs("null", stdout);
}

void json_key(const char *name) {
    json_string(name);
    putchar(':');
}

void json_comma(int is_not_first) {
    if (is_not_first) fputs(", ", stdout);
}
