/* test of @NAME@: runs the sounds below and compares.
 *
 *     cc -std=c99 -O2 @NAME@.c @NAME@_test.c -lm -o @NAME@_test && ./@NAME@_test
 *
 * With a file of float32 windows it prints their logits; with a file and one word more, the logits of all frames of the
 * recording that the samples are, and its events.
 */
#include <math.h>
#include <stdio.h>
#include <time.h>

#include "@NAME@.h"

@TABLES@
static @NAME@_recording recording;
static @NAME@_state *const state = &recording.state;
static float window[@UPPER@_WINDOW];

static void run(void)
{
    @NAME@_start(state);
    for (size_t n = 0; n < @UPPER@_WINDOW;) /* in pieces, as from a microphone */
        n += @NAME@_push(state, window + n, @UPPER@_WINDOW - n < 512 ? @UPPER@_WINDOW - n : 512);
}

static void print(void *user, double time_s, const @NAME@_logits *logits)
{
    (void)user, (void)time_s;
@PRINT@
    printf("\n");
}

static void print_event(void *user, const @NAME@_event *event)
{
    (void)user;
    printf("event %.6f %.6f %d %.6f %s\n", event->start_s, event->end_s, event->index, (double)event->score, event->task);
}

int main(int argc, char **argv)
{
    double worst = 0;
    clock_t began;
    if (argc > 1) {
        FILE *file = fopen(argv[1], "rb");
        size_t n;
        if (!file)
            return 2;
        @NAME@_begin(&recording, print_event, print, NULL);
        while ((n = fread(window, sizeof(float), argc > 2 ? 700 : @UPPER@_WINDOW, file)) > 0) {
            if (argc > 2) {
                @NAME@_hear(&recording, window, n);
            } else {
                run();
                print(NULL, 0, &state->logits);
            }
        }
        if (argc > 2)
            @NAME@_end(&recording);
        fclose(file);
        return 0;
    }
    for (int k = 0; k < @COUNT@; k++) {
        for (int i = 0; i < @UPPER@_WINDOW; i++)
            window[i] = (float)sounds[k * @UPPER@_WINDOW + i] / 32768;
        run();
@CHECK@
    }
    began = clock();
    for (int k = 0; k < 20; k++)
        run();
    printf("error %.9g ms %.4f state %u recording %u\n", worst, 1000.0 * (double)(clock() - began) / CLOCKS_PER_SEC / 20,
           (unsigned)sizeof *state, (unsigned)sizeof recording);
    return worst > 1e-3;
}
