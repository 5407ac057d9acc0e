/* Counts the edges that instrumented code passes; gcc's -fsanitize-coverage=trace-pc calls us.

   Loaded with RTLD_GLOBAL before the instrumented modules. One thread only. */
#include <stdint.h>
#include <string.h>

#define EDGES 65536

static uint8_t counts[EDGES];
static uint8_t seen[EDGES];
static uintptr_t before;

void __sanitizer_cov_trace_pc(void)
{
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    /* The page offset and a little more: stable within a run, whatever the load address. */
    uintptr_t mixed = (here * 0x9E3779B97F4A7C15u) >> 16;
    uint8_t *count = &counts[(mixed ^ before) % EDGES];
    if (*count != 255)
        ++*count;
    before = mixed >> 1;
}

void edges_reset(void)
{
    memset(counts, 0, sizeof counts);
    before = 0;
}

/* How many times is told apart in powers of two, as AFL does it. */
static uint8_t bucket(uint8_t count)
{
    if (count < 4)
        return (uint8_t)(1u << (count - 1));
    return (uint8_t)(1u << (count < 8 ? 3 : count < 16 ? 4 : count < 32 ? 5 : count < 128 ? 6 : 7));
}

/* Returns whether the run since the reset showed an edge, or a number of times, that is new. */
int edges_new(void)
{
    int found = 0;
    for (unsigned i = 0; i < EDGES; i++) {
        if (counts[i] && bucket(counts[i]) & ~seen[i]) {
            seen[i] |= bucket(counts[i]);
            found = 1;
        }
    }
    return found;
}

unsigned edges_total(void)
{
    unsigned total = 0;
    for (unsigned i = 0; i < EDGES; i++)
        total += seen[i] != 0;
    return total;
}
