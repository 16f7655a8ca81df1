#include "@NAME@.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef @WEIGHT@ WEIGHT;
typedef @NAME@_state STATE;

@CONSTANTS@
@FEATURES@
@KERNELS@
static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Each operation computes its next row, if what it needs is there. Returns whether any did. */
static int advance(STATE *s)
{
    int more = 0;
@STEPS@
    return more;
}

@PUSH@
