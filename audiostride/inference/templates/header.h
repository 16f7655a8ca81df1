/* @NAME@: a sound classifier, features inside. Written by audiostride.
 *
 * Windows of sound, one behind the other:
 *
 *     @NAME@_state state;
 *     @NAME@_start(&state);
 *     for (size_t used = 0; used < n; used += @NAME@_push(&state, samples + used, n - used))
 *         if (state.ready) { ... state.logits, of the window that ended before these samples ... }
 *
 * A recording of any length, and what is heard in it from when to when:
 *
 *     static void heard(void *user, const @NAME@_event *event) { ... event->label, event->start_s, event->end_s ... }
 *
 *     @NAME@_recording recording;
 *     @NAME@_begin(&recording, heard, NULL, NULL);
 *     @NAME@_hear(&recording, samples, n);   as often as there are samples
 *     @NAME@_end(&recording);                where it ends, if it does
 */
#ifndef @UPPER@_H
#define @UPPER@_H
#include <stddef.h>

#define @UPPER@_SAMPLE_RATE @SAMPLE_RATE@
#define @UPPER@_WINDOW @WINDOW@ /* samples from one answer to the next */
#ifndef @UPPER@_EVENT_FRAMES
#define @UPPER@_EVENT_FRAMES @EVENT_FRAMES@ /* longest event, 10 s; a longer one is given in parts */
#endif

/* Logits of each task; the largest is the likeliest class. */
typedef struct {
@LOGITS@
} @NAME@_logits;

/* All memory that the classifier needs. */
typedef struct {
    @NAME@_logits logits;
    int ready; /* whether the last push ended a window, so that the logits are new */
    int seen, filled;
    long long made[@MAPS@], rows[@MAPS@];
    struct @NAME@_recording *recording;
@MEMORY@
} @NAME@_state;

/* Something heard in a recording. */
typedef struct {
    const char *task, *label;
    int index; /* of the class */
    double start_s, end_s;
    float peak, score; /* its largest logit, or difference of two; its probability */
} @NAME@_event;

/* A recording: the classifier's memory and that of the events. */
typedef struct @NAME@_recording {
    @NAME@_state state;
    void (*event)(void *user, const @NAME@_event *event);
    void (*frame)(void *user, double time_s, const @NAME@_logits *logits);
    void *user;
    long long samples, frames, last;
    struct {
        long long start, end;
    } runs[@TRACKS@];
    @NAME@_logits held[@UPPER@_EVENT_FRAMES + @GAP@];
@RECORDING_MEMORY@
} @NAME@_recording;

/* Of each task the names of its classes, and the answer to its logits: the number of the likeliest class, -1 for none of
 * them. The probability of each class is written to `probabilities`, unless that is NULL. */
@LABELS@

/* Begin a window: before the first samples, or to forget those of an unfinished one. */
void @NAME@_start(@NAME@_state *state);

/* Take mono samples, full scale at +-1, up to the end of a window, and say how many they were. state->ready says whether
 * the window ended with them; the rest is for the next call. */
size_t @NAME@_push(@NAME@_state *state, const float *samples, size_t n);

/* Begin a recording. `event` is called with everything that was heard, as soon as it has ended for certain; `frame`, if it
 * is not NULL, with the logits of every frame; both get `user`. */
void @NAME@_begin(@NAME@_recording *recording, void (*event)(void *user, const @NAME@_event *event),
    void (*frame)(void *user, double time_s, const @NAME@_logits *logits), void *user);

/* Take all of these samples. */
void @NAME@_hear(@NAME@_recording *recording, const float *samples, size_t n);

/* What is left to be heard when no more samples come; then begin anew. */
void @NAME@_end(@NAME@_recording *recording);

#endif
