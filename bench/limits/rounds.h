/* What the limits share: the clock, and the numbers in a round's JSON line. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

/* Return the number after "name": in a line of JSON that Python wrote, or another. */
static inline long number_of(const char *line, const char *name, long otherwise)
{
    char key[64] = "\"";
    strncat(key, name, sizeof key - 4);
    strcat(key, "\":");
    const char *found = strstr(line, key);
    return found ? strtol(found + strlen(key), NULL, 10) : otherwise;
}
