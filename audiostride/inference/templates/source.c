#include "@NAME@.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef @WEIGHT@ WEIGHT;
typedef @NAME@_state STATE;
typedef @NAME@_logits LOGITS;
typedef @NAME@_event EVENT;
typedef @NAME@_recording RECORDING;

@CONSTANTS@
@FEATURES@
@KERNELS@
static long long least(long long a, long long b)
{
    return a < b ? a : b;
}

static void one_frame(RECORDING *r, const LOGITS *logits);
static void begin_frames(RECORDING *r);

/* Each operation computes its next row, if what it needs is there. Returns whether any did. */
static int advance(STATE *s)
{
    int more = 0;
@STEPS@
    return more;
}

@INPUT@
@PUSH@
@ANSWER@
@EVENTS@
@RECORDING@
