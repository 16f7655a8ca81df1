/* The arithmetic: each function computes one row (a frame of a map: channels times bands) or less. */

/* A value after a ReLU, if there is one; without a branch, which would be guessed wrong half of the time. */
static float rectified(float value, int relu)
{
    const float lowest = relu ? 0 : -HUGE_VALF;
    return value > lowest ? value : lowest;
}

/* Patches of one row: (in, time, mel) of a kernel, for each column of the output; zero outside of the map. */
static void gather(float *patches, const float *rows, int capacity, long long first, long long total, int channels,
                   int width, int kernel_time, int kernel_mel, int stride_mel, int padding_mel, int columns, int pitch)
{
    const int slot = (int)((first % capacity + capacity) % capacity);
    for (int c = 0; c < channels; c++)
        for (int a = 0; a < kernel_time; a++) {
            const int at = slot + a < capacity ? slot + a : (slot + a) % capacity;
            const int is_there = first + a >= 0 && first + a < total;
            for (int b = 0; b < kernel_mel; b++, patches += pitch) {
                const float *row = rows + (size_t)(at * channels + c) * width;
                int band = b - padding_mel, w = 0;
                if (!is_there)
                    band = width;
                for (; band < 0; band += stride_mel)
                    patches[w++] = 0;
                if (stride_mel == 1 && band < width) {
                    const int n = columns - w < width - band ? columns - w : width - band;
                    memcpy(patches + w, row + band, (size_t)n * sizeof(float));
                    band += n, w += n;
                }
                for (; w < columns && band < width; band += stride_mel)
                    patches[w++] = row[band];
                while (w < columns)
                    patches[w++] = 0;
            }
        }
}

/* Four outputs at eight columns, written so that a compiler keeps the 32 sums in registers: gcc does with arrays, as long
 * as it does not unroll (which the pragma forbids), clang with vectors of its own. */
#ifdef __clang__
typedef float EIGHT __attribute__((vector_size(32)));
#endif
static void tile(float sums[4][8], const float *patches, const WEIGHT *weights, int kernel, int pitch)
{
#ifdef __clang__
    EIGHT a = {0}, b = a, c = a, d = a, x;
    for (int k = 0; k < kernel; k++, patches += pitch, weights += 4) {
        memcpy(&x, patches, sizeof x);
        a += x * (float)weights[0], b += x * (float)weights[1], c += x * (float)weights[2], d += x * (float)weights[3];
    }
    memcpy(sums[0], &a, sizeof a), memcpy(sums[1], &b, sizeof b), memcpy(sums[2], &c, sizeof c), memcpy(sums[3], &d, sizeof d);
#else
    float a[8] = {0}, b[8] = {0}, c[8] = {0}, d[8] = {0};
    for (int k = 0; k < kernel; k++, patches += pitch, weights += 4) {
        const float p = weights[0], q = weights[1], r = weights[2], s = weights[3];
#pragma GCC unroll 1
        for (int j = 0; j < 8; j++) {
            const float x = patches[j];
            a[j] += p * x, b[j] += q * x, c[j] += r * x, d[j] += s * x;
        }
    }
    memcpy(sums[0], a, sizeof a), memcpy(sums[1], b, sizeof b), memcpy(sums[2], c, sizeof c), memcpy(sums[3], d, sizeof d);
#endif
}

/* Rows of several columns: weights (outputs / 4, kernel, 4), patches (kernel, pitch), eight columns at a time. */
static void multiply(float *out, const float *patches, const WEIGHT *weights, const float *scale, const float *bias,
                     int outputs, int kernel, int columns, int pitch, int relu)
{
    for (int o = 0; o < outputs; o += 4, weights += 4 * kernel)
        for (int w = 0; w < columns; w += 8) {
            float sums[4][8];
            tile(sums, patches + w, weights, kernel, pitch);
            for (int i = 0; i < 4 && o + i < outputs; i++) {
                const float by = scale[o + i], shift = bias[o + i];
                for (int j = 0; j < 8; j++)
                    sums[i][j] = rectified(sums[i][j] * by + shift, relu);
                memcpy(out + (o + i) * columns + w, sums[i], (size_t)(columns - w < 8 ? columns - w : 8) * sizeof(float));
            }
        }
}

/* The same for one column: weights (outputs / 16, kernel, 16), patches (kernel), which is even. */
static void multiply_column(float *out, const float *patches, const WEIGHT *weights, const float *scale,
                            const float *bias, int outputs, int kernel, int relu)
{
    for (int o = 0; o < outputs; o += 16) {
        float a[16] = {0}, b[16] = {0};
        for (int k = 0; k < kernel; k += 2, weights += 32) {
            const float p = patches[k], q = patches[k + 1];
#pragma GCC unroll 1
            for (int j = 0; j < 16; j++)
                a[j] += p * weights[j];
#pragma GCC unroll 1
            for (int j = 0; j < 16; j++)
                b[j] += q * weights[16 + j];
        }
        for (int j = 0; j < 16 && o + j < outputs; j++) {
            out[o + j] = rectified((a[j] + b[j]) * scale[o + j] + bias[o + j], relu);
        }
    }
}

/* One kernel a channel (as many outputs as inputs): weights (outputs, time, mel). */
static void depthwise(float *out, const float *rows, int capacity, long long first, long long total, int channels,
                      int width, const WEIGHT *weights, const float *scale, const float *bias, int kernel_time, int kernel_mel,
                      int stride_mel, int padding_mel, int columns, int relu)
{
    const int slot = (int)((first % capacity + capacity) % capacity);
    for (int c = 0; c < channels; c++, weights += kernel_time * kernel_mel)
        for (int w = 0; w < columns; w++) {
            float sum = 0;
            for (int a = 0; a < kernel_time; a++) {
                if (first + a < 0 || first + a >= total)
                    continue;
                const float *row = rows + (size_t)((slot + a) % capacity * channels + c) * width;
                for (int b = 0; b < kernel_mel; b++) {
                    const int band = w * stride_mel - padding_mel + b;
                    if (band >= 0 && band < width)
                        sum += row[band] * weights[a * kernel_mel + b];
                }
            }
            out[c * columns + w] = rectified(sum * scale[c] + bias[c], relu);
        }
}

/* A batch norm. */
static void affine(float *out, const float *row, const float *scale, const float *shift, int channels, int width,
                   int relu)
{
    for (int c = 0; c < channels; c++)
        for (int w = 0; w < width; w++, row++)
            *out++ = rectified(*row * scale[c] + shift[c], relu);
}

/* The sum of two rows; of one, where both are the same, a copy with negative values at 0. */
static void add(float *out, const float *a, const float *b, int size, int relu)
{
    for (int i = 0; i < size; i++)
        out[i] = rectified(b ? a[i] + b[i] : a[i], relu);
}

/* A row's bands times a matrix (groups, m, n). */
static void mel_matrix(float *out, const float *row, const float *matrix, int groups, int channels, int m, int n,
                       int relu)
{
    for (int c = 0; c < channels; c++, row += n) {
        const float *weights = matrix + (size_t)(c / (channels / groups)) * m * n;
        for (int i = 0; i < m; i++, weights += n) {
            float sum = 0;
            for (int j = 0; j < n; j++)
                sum += weights[j] * row[j];
            *out++ = rectified(sum, relu);
        }
    }
}

/* What frame `taken` of n adds to all m output rows of a matrix (groups, m, n) along time. */
static void time_matrix(float *out, const float *row, const float *matrix, int groups, int channels, int width, int m,
                        int n, int taken)
{
    const int part = channels / groups * width;
    for (int i = 0; i < m; i++)
        for (int g = 0; g < groups; g++) {
            const float weight = matrix[((size_t)g * m + i) * n + taken];
            float *to = out + ((size_t)i * groups + g) * part;
            const float *from = row + (size_t)g * part;
            for (int k = 0; k < part; k++)
                to[k] += weight * from[k];
        }
}

/* The mean of tiles of frames and bands; a tile at the end has fewer. */
static void average(float *out, const float *rows, int capacity, long long first, int frames, int channels, int width,
                    int size_mel)
{
    for (int frame = 0; frame < frames; frame++) {
        const float *row = rows + (size_t)((first + frame) % capacity) * channels * width;
        float *to = out;
        for (int c = 0; c < channels; c++, row += width)
            for (int w = 0; w < width; w += size_mel, to++) {
                const int end = w + size_mel < width ? w + size_mel : width;
                float sum = frame ? *to : 0;
                for (int i = w; i < end; i++)
                    sum += row[i];
                *to = frame == frames - 1 ? sum / (float)(frames * (end - w)) : sum;
            }
    }
}

/* Every step-th band. */
static void pick(float *out, const float *row, int channels, int width, int step)
{
    for (int c = 0; c < channels; c++, row += width)
        for (int w = 0; w < width; w += step)
            *out++ = row[w];
}

/* The sum, or the largest value, of each channel so far. */
static void reduce(float *out, const float *row, int channels, int width, int is_max, int is_first)
{
    for (int c = 0; c < channels; c++) {
        float value = is_first ? (is_max ? *row : 0) : out[c];
        for (int w = 0; w < width; w++, row++)
            value = is_max ? (*row > value ? *row : value) : value + *row;
        out[c] = value;
    }
}
