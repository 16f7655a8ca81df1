/* A frame of features, of silence behind what is there, and what the network makes of it. */
static void next_frame(STATE *s)
{
    if (s->made[0] < s->rows[0]) {
        memset(s->samples + s->filled, 0, (size_t)(@BUFFER@ - s->filled) * sizeof(float));
        log_mel(@ROW@, s->samples, s->re, s->im);
        s->made[0]++;
        while (advance(s)) {
        }
    }
    memmove(s->samples, s->samples + @HOP@, (@BUFFER@ - @HOP@) * sizeof(float));
    s->filled = s->filled > @HOP@ ? s->filled - @HOP@ : 0;
}

/* Take samples, as many as the next frame has room for, and say how many. */
static size_t take(STATE *s, const float *samples, size_t n)
{
    if (n > (size_t)(@BUFFER@ - s->filled))
        n = (size_t)(@BUFFER@ - s->filled);
    memcpy(s->samples + s->filled, samples, n * sizeof(float));
    s->filled += (int)n;
    if (s->filled == @BUFFER@)
        next_frame(s);
    return n;
}

/* What is left of a sound that has ended. */
static void flush(STATE *s)
{
    while (s->made[0] < s->rows[0])
        next_frame(s);
    while (advance(s)) {
    }
}
