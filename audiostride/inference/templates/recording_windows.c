/* A recording is cut into windows that overlap; where they do, their frames are cross-faded. */
static void one_frame(RECORDING *r, const LOGITS *logits)
{
    const int i = r->in_window++;
    const float weight = (float)least(i + 1, @PER_WINDOW@ - i), *from = (const float *)logits;
    float *to = (float *)&r->sums[i];
    r->weights[i] += weight;
    for (size_t k = 0; k < sizeof *logits / sizeof(float); k++)
        to[k] += weight * from[k];
}

/* The first n of the frames, which no other window adds to. */
static void hear_frames(RECORDING *r, int n)
{
    for (int i = 0; i < n; i++) {
        float *sums = (float *)&r->sums[i];
        for (size_t k = 0; k < sizeof *r->sums / sizeof(float); k++)
            sums[k] /= r->weights[i];
        hear_frame(r, &r->sums[i]);
    }
    memmove(r->sums, r->sums + n, (size_t)(@PER_WINDOW@ - n) * sizeof *r->sums);
    memmove(r->weights, r->weights + n, (size_t)(@PER_WINDOW@ - n) * sizeof *r->weights);
    memset(r->sums + @PER_WINDOW@ - n, 0, (size_t)n * sizeof *r->sums);
    memset(r->weights + @PER_WINDOW@ - n, 0, (size_t)n * sizeof *r->weights);
}

static void one_window(RECORDING *r)
{
    const long long begin = llrint((double)(r->windows * @SHIFT@) * @FRAME_HOP@);
    const int hop = (int)(llrint((double)(++r->windows * @SHIFT@) * @FRAME_HOP@) - begin);
    @NAME@_start(&r->state);
    r->in_window = 0;
    r->state.recording = @MEAN@ ? r : NULL; /* who then gets every frame */
    @NAME@_push(&r->state, r->window, @UPPER@_WINDOW);
    if (!@MEAN@)
        one_frame(r, &r->state.logits);
    hear_frames(r, @SHIFT@);
    memmove(r->window, r->window + hop, (size_t)(@UPPER@_WINDOW - hop) * sizeof(float));
    r->filled = @UPPER@_WINDOW - hop;
}

static void begin_frames(RECORDING *r)
{
    memset(r->window, 0, sizeof r->window);
    memset(r->sums, 0, sizeof r->sums);
    memset(r->weights, 0, sizeof r->weights);
    r->windows = 0, r->filled = @LEAD@;
}

static void add_samples(RECORDING *r, const float *samples, size_t n)
{
    while (n) {
        size_t some = (size_t)(@UPPER@_WINDOW - r->filled);
        some = n < some ? n : some;
        memcpy(r->window + r->filled, samples, some * sizeof(float));
        r->filled += (int)some, samples += some, n -= some;
        if (r->filled == @UPPER@_WINDOW)
            one_window(r);
    }
}

void @NAME@_hear(RECORDING *r, const float *samples, size_t n)
{
    r->samples += (long long)n;
    add_samples(r, samples, n);
}

void @NAME@_end(RECORDING *r)
{
    const float silence = 0;
    long long windows = 1;
    r->last = (long long)fmax(1, ceil((double)r->samples / @FRAME_HOP@ - 1e-6));
    if (r->last > @PER_WINDOW@)
        windows += (r->last - @PER_WINDOW@ + @SHIFT@ - 1) / @SHIFT@;
    while (r->windows < windows)
        add_samples(r, &silence, 1);
    hear_frames(r, (int)least(@PER_WINDOW@ - @SHIFT@, r->last - r->frames));
    find(r, 1);
}
