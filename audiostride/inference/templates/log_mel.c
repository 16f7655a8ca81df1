@TABLES@

/* A frame of samples under the window, its FFT (of half the length, as samples are real), mel bands, logarithm. */
static void log_mel(float *out, const float *samples, float *re, float *im)
{
    const int half = N_FFT / 2;
    for (int k = 0, reversed = 0; k < half; k++) {
        re[reversed] = 2 * k < WINDOW_LENGTH ? samples[2 * k] * hann[2 * k] : 0;
        im[reversed] = 2 * k + 1 < WINDOW_LENGTH ? samples[2 * k + 1] * hann[2 * k + 1] : 0;
        int bit = half / 2;
        for (; reversed & bit; bit /= 2)
            reversed ^= bit;
        reversed ^= bit;
    }
    for (int size = 1; size < half; size *= 2)
        for (int j = 0; j < size; j++) {
            const float c = turn_cos[j * (half / size)], s = turn_sin[j * (half / size)];
            for (int a = j; a < half; a += 2 * size) {
                const int b = a + size;
                const float x = re[b] * c + im[b] * s, y = im[b] * c - re[b] * s;
                re[b] = re[a] - x, im[b] = im[a] - y;
                re[a] += x, im[a] += y;
            }
        }
    /* The spectra of even and odd samples, taken apart and put together; its power takes the place of the two. */
    for (int k = 0; k <= half / 2; k++) {
        const int l = (half - k) % half;
        const float even_re = (re[k] + re[l]) / 2, even_im = (im[k] - im[l]) / 2;
        const float odd_re = (im[k] + im[l]) / 2, odd_im = (re[l] - re[k]) / 2;
        const float x = odd_re * turn_cos[k] + odd_im * turn_sin[k], y = odd_im * turn_cos[k] - odd_re * turn_sin[k];
        re[k] = (even_re + x) * (even_re + x) + (even_im + y) * (even_im + y);
        re[half - k] = (even_re - x) * (even_re - x) + (even_im - y) * (even_im - y);
    }
    const float *weights = filters;
    for (int band = 0; band < N_MELS; band++) {
        float power = 0;
        for (int k = filter_begin[band]; k < filter_end[band]; k++)
            power += *weights++ * re[k];
        out[band] = logf(power + LOG_OFFSET);
    }
}
