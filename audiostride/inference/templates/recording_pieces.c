/* A recording goes through the network as one window without an end. */
static const long long UNKNOWN = (long long)1 << 62;

static void one_frame(RECORDING *r, const LOGITS *logits)
{
    hear_frame(r, logits);
}

static void begin_frames(RECORDING *r)
{
    r->state.recording = r;
    for (int i = 0; i < @MAPS@; i++)
        r->state.rows[i] = UNKNOWN;
}

void @NAME@_hear(RECORDING *r, const float *samples, size_t n)
{
    r->samples += (long long)n;
    for (size_t used = 0; used < n;)
        used += take(&r->state, samples + used, n - used);
}

void @NAME@_end(RECORDING *r)
{
    const float silence = 0;
    STATE *s = &r->state;
    long long samples = r->samples;
    if (samples < @UPPER@_WINDOW) { /* as short clips are classified: among silence */
        r->last = (samples + @WHOLE_HOP@ - 1) / @WHOLE_HOP@;
        for (; samples < @UPPER@_WINDOW; samples++)
            take(s, &silence, 1);
    }
    s->rows[0] = samples / @HOP@;
@ROWS@
    flush(s);
    find(r, 1);
}
