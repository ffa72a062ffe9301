/* Checks that are counted; main ends with `return report();`. */
#ifndef CHECK_H
#define CHECK_H

#include "esolm.h"

#include <stdio.h>
#include <string.h>

static int passed, failed;

#define CHECK(condition) check((condition) ? 1 : 0, #condition, __LINE__)
#define STATUS(expected, call) check_status((expected), (call), #call, __LINE__)

static void check(int ok, const char *what, int line)
{
    if (ok) {
        passed++;
    } else {
        failed++;
        printf("line %d: failed: %s\n", line, what);
    }
}

static inline void check_status(esolm_status expected, esolm_status found, const char *what, int line)
{
    check(expected == found, what, line);
    if (expected != found)
        printf("    expected %s, got %s (%s)\n", esolm_status_text(expected), esolm_status_text(found),
               esolm_last_error());
}

/* Runs the remaining steps, and copies the first sequence's tokens. */
static inline void finish(esolm_context *context, uint32_t *tokens, size_t capacity)
{
    int32_t done = 0;
    esolm_status status;
    size_t n = 0;
    while (!(status = esolm_step(context, NULL, &done)) && !done)
        ;
    STATUS(ESOLM_OK, status);
    STATUS(ESOLM_OK, esolm_copy_tokens(context, 0, tokens, capacity, &n));
}

static int report(void)
{
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

#endif
