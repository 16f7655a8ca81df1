/* @NAME@: a sound classifier, features inside. Written by audiostride.
 *
 *     @NAME@_state state;
 *     @NAME@_start(&state);
 *     for (size_t used = 0; used < n; used += @NAME@_push(&state, samples + used, n - used))
 *         if (state.ready) { ... state.logits, of the window that ended before these samples ... }
 */
#ifndef @UPPER@_H
#define @UPPER@_H
#include <stddef.h>

#define @UPPER@_SAMPLE_RATE @SAMPLE_RATE@
#define @UPPER@_WINDOW @WINDOW@ /* samples from one answer to the next */

/* Logits of each task; the largest is the likeliest class. */
typedef struct {
@LOGITS@
} @NAME@_logits;

/* All memory that the classifier needs. */
typedef struct {
    @NAME@_logits logits;
    int ready; /* whether the last push ended a window, so that the logits are new */
    int seen, filled, made[@MAPS@];
@MEMORY@
} @NAME@_state;

@LABELS@

/* Begin a window: before the first samples, or to forget those of an unfinished one. */
void @NAME@_start(@NAME@_state *state);

/* Take mono samples, full scale at +-1, up to the end of a window, and say how many they were. state->ready says whether
 * the window ended with them; the rest is for the next call. */
size_t @NAME@_push(@NAME@_state *state, const float *samples, size_t n);

#endif
