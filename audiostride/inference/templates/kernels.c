/* The arithmetic: each function computes one row (a frame of a map: channels times bands) or less. */

/* Patches of one row: (in, time, mel) of a kernel, for each column of the output; zero outside of the map. */
static void gather(float *patches, const float *rows, int capacity, long long first, long long total, int channels,
                   int width, int kernel_time, int kernel_mel, int stride_mel, int padding_mel, int columns, int pitch)
{
    const int slot = (int)((first % capacity + capacity) % capacity);
    for (int c = 0; c < channels; c++)
        for (int a = 0; a < kernel_time; a++) {
            const float *row = rows + (size_t)((slot + a) % capacity * channels + c) * width;
            const int is_there = first + a >= 0 && first + a < total;
            for (int b = 0; b < kernel_mel; b++, patches += pitch) {
                const int before = padding_mel > b ? padding_mel - b : 0, room = width - 1 + padding_mel - b;
                const int begin = (before + stride_mel - 1) / stride_mel;
                const int end = !is_there || room < 0 ? 0 : room / stride_mel + 1 < columns ? room / stride_mel + 1 : columns;
                int w = 0;
                for (; w < begin && w < end; w++)
                    patches[w] = 0;
                for (const float *from = row + w * stride_mel - padding_mel + b; w < end; w++, from += stride_mel)
                    patches[w] = *from;
                for (; w < columns; w++)
                    patches[w] = 0;
            }
        }
}

/* Four patches times eight outputs, written out so that a compiler keeps the sums in registers. The weights of patch i
 * begin `apart * i` behind those of the first: 0, or 8 where the four are parts of one. */
static void tile(float sums[4][8], const float *patches, const WEIGHT *weights, int kernel, int pitch, int apart)
{
    float a[8] = {0}, b[8] = {0}, c[8] = {0}, d[8] = {0};
    for (int k = 0; k < kernel; k++, patches += pitch, weights += apart ? 4 * apart : 8) {
        const float p = patches[0], q = patches[1], r = patches[2], s = patches[3];
        for (int j = 0; j < 8; j++)
            a[j] += p * weights[j];
        for (int j = 0; j < 8; j++)
            b[j] += q * weights[apart + j];
        for (int j = 0; j < 8; j++)
            c[j] += r * weights[2 * apart + j];
        for (int j = 0; j < 8; j++)
            d[j] += s * weights[3 * apart + j];
    }
    memcpy(sums[0], a, sizeof a);
    memcpy(sums[1], b, sizeof b);
    memcpy(sums[2], c, sizeof c);
    memcpy(sums[3], d, sizeof d);
}

/* Rows of several columns: weights (outputs / 8, kernel, 8), patches (kernel, pitch), four columns at a time. */
static void multiply(float *out, const float *patches, const WEIGHT *weights, const float *scale, const float *bias,
                     int outputs, int kernel, int columns, int pitch, int relu)
{
    for (int o = 0; o < outputs; o += 8, weights += 8 * kernel)
        for (int w = 0; w < columns; w += 4) {
            float sums[4][8];
            tile(sums, patches + w, weights, kernel, pitch, 0);
            for (int j = 0; j < 8 && o + j < outputs; j++)
                for (int i = 0; i < 4 && w + i < columns; i++) {
                    const float value = sums[i][j] * scale[o + j] + bias[o + j];
                    out[(o + j) * columns + w + i] = relu && value < 0 ? 0 : value;
                }
        }
}

/* The same for one column: patches (kernel), which is a multiple of four. */
static void multiply_column(float *out, const float *patches, const WEIGHT *weights, const float *scale,
                            const float *bias, int outputs, int kernel, int relu)
{
    for (int o = 0; o < outputs; o += 8, weights += 8 * kernel) {
        float sums[4][8];
        tile(sums, patches, weights, kernel / 4, 4, 8);
        for (int j = 0; j < 8 && o + j < outputs; j++) {
            const float value =
                (sums[0][j] + sums[1][j] + sums[2][j] + sums[3][j]) * scale[o + j] + bias[o + j];
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
    for (int c = 0; c < channels; c++)
        for (int w = 0; w < width; w += size_mel) {
            const int end = w + size_mel < width ? w + size_mel : width;
            float sum = 0;
            for (long long frame = first; frame < first + frames; frame++)
                for (int i = w; i < end; i++)
                    sum += rows[((size_t)(frame % capacity) * channels + c) * width + i];
            *out++ = sum / (float)(frames * (end - w));
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
