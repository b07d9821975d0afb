/* What the machine is like while something is measured: looked at between two runs, at most once a second. */
#ifndef POCKETVL_CONDITIONS_H
#define POCKETVL_CONDITIONS_H

/* Looks, unless less than a second has passed since it last did. */
void conditions_look(void);

/* Looks once more, as after the last run: what other programs do is known of the time between two looks. */
void conditions_end(void);

/* Mean frequency and temperature of the looks between two moments of `wall_seconds`; NaN: not known. */
double conditions_mhz(double from, double to);
double conditions_celsius(double from, double to);

/* The object `conditions` of a bench result. */
void conditions_write(void);

#endif
