/* test of @NAME@: runs the sounds below and compares; with a file of float32 windows, prints their logits.
 *
 *     cc -std=c99 -O2 @NAME@.c @NAME@_test.c -lm -o @NAME@_test && ./@NAME@_test
 */
#include <math.h>
#include <stdio.h>
#include <time.h>

#include "@NAME@.h"

@TABLES@
static @NAME@_state state;
static float window[@UPPER@_WINDOW];

static void run(void)
{
    @NAME@_start(&state);
    for (size_t n = 0; n < @UPPER@_WINDOW;) /* in pieces, as from a microphone */
        n += @NAME@_push(&state, window + n, @UPPER@_WINDOW - n < 512 ? @UPPER@_WINDOW - n : 512);
}

static void print(void)
{
@PRINT@
    printf("\n");
}

int main(int argc, char **argv)
{
    double worst = 0;
    clock_t began;
    if (argc > 1) {
        FILE *file = fopen(argv[1], "rb");
        if (!file)
            return 2;
        while (fread(window, sizeof window, 1, file) == 1) {
            run();
            print();
        }
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
    printf("error %.9g ms %.4f state %u\n", worst, 1000.0 * (double)(clock() - began) / CLOCKS_PER_SEC / 20,
           (unsigned)sizeof state);
    return worst > 1e-3;
}
