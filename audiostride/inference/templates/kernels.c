/* The arithmetic: each function computes one row (a frame of a map: channels times bands) or less. */

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

/* Four outputs at eight columns, written out so that a compiler keeps the sums in registers; which gcc -O3 does only if
 * it does not unroll. */
static void tile(float sums[4][8], const float *patches, const WEIGHT *weights, int kernel, int pitch)
{
    float a[8] = {0}, b[8] = {0}, c[8] = {0}, d[8] = {0};
    for (int k = 0; k < kernel; k++, patches += pitch, weights += 4) {
        const float p = weights[0], q = weights[1], r = weights[2], s = weights[3];
#pragma GCC unroll 1
        for (int j = 0; j < 8; j++)
            a[j] += p * patches[j];
#pragma GCC unroll 1
        for (int j = 0; j < 8; j++)
            b[j] += q * patches[j];
#pragma GCC unroll 1
        for (int j = 0; j < 8; j++)
            c[j] += r * patches[j];
#pragma GCC unroll 1
        for (int j = 0; j < 8; j++)
            d[j] += s * patches[j];
    }
    memcpy(sums[0], a, sizeof a);
    memcpy(sums[1], b, sizeof b);
    memcpy(sums[2], c, sizeof c);
    memcpy(sums[3], d, sizeof d);
}

/* Rows of several columns: weights (outputs / 4, kernel, 4), patches (kernel, pitch), eight columns at a time. */
static void multiply(float *out, const float *patches, const WEIGHT *weights, const float *scale, const float *bias,
                     int outputs, int kernel, int columns, int pitch, int relu)
{
    const float lowest = relu ? 0 : -HUGE_VALF;
    for (int o = 0; o < outputs; o += 4, weights += 4 * kernel)
        for (int w = 0; w < columns; w += 8) {
            float sums[4][8];
            tile(sums, patches + w, weights, kernel, pitch);
            for (int i = 0; i < 4 && o + i < outputs; i++) {
                const float by = scale[o + i], shift = bias[o + i];
                for (int j = 0; j < 8; j++) {
                    const float value = sums[i][j] * by + shift;
                    sums[i][j] = value > lowest ? value : lowest;
                }
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
            const float value = (a[j] + b[j]) * scale[o + j] + bias[o + j];
            out[o + j] = relu && value < 0 ? 0 : value;
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
            const float value = sum * scale[c] + bias[c];
            out[c * columns + w] = relu && value < 0 ? 0 : value;
        }
}

/* A batch norm. */
static void affine(float *out, const float *row, const float *scale, const float *shift, int channels, int width,
                   int relu)
{
    for (int c = 0; c < channels; c++)
        for (int w = 0; w < width; w++, row++) {
            const float value = *row * scale[c] + shift[c];
            *out++ = relu && value < 0 ? 0 : value;
        }
}

/* The sum of two rows; of one, where both are the same, a copy with negative values at 0. */
static void add(float *out, const float *a, const float *b, int size, int relu)
{
    for (int i = 0; i < size; i++) {
        const float value = b ? a[i] + b[i] : a[i];
        out[i] = relu && value < 0 ? 0 : value;
    }
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
            *out++ = relu && sum < 0 ? 0 : sum;
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
