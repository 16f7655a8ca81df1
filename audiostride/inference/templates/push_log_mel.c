/* A frame of features, of silence behind what is there, and what the network makes of it. */
static void frame(STATE *s)
{
    if (s->made[0] < @FRAMES@) {
        memset(s->samples + s->filled, 0, (size_t)(@BUFFER@ - s->filled) * sizeof(float));
        log_mel(@ROW@, s->samples, s->re, s->im);
        s->made[0]++;
        while (advance(s)) {
        }
    }
    memmove(s->samples, s->samples + @HOP@, (@BUFFER@ - @HOP@) * sizeof(float));
    s->filled = s->filled > @HOP@ ? s->filled - @HOP@ : 0;
}

void @NAME@_start(STATE *s)
{
    s->seen = s->filled = s->ready = 0;
    memset(s->made, 0, sizeof s->made);
}

size_t @NAME@_push(STATE *s, const float *samples, size_t n)
{
    size_t used = 0;
    if (s->ready)
        @NAME@_start(s);
    while (used < n && !s->ready) {
        int take = least(@BUFFER@ - s->filled, @UPPER@_WINDOW - s->seen);
        if ((size_t)take > n - used)
            take = (int)(n - used);
        memcpy(s->samples + s->filled, samples + used, (size_t)take * sizeof(float));
        s->filled += take, s->seen += take, used += (size_t)take;
        if (s->filled == @BUFFER@)
            frame(s);
        if (s->seen == @UPPER@_WINDOW) {
            while (s->made[0] < @FRAMES@)
                frame(s);
            s->ready = 1;
        }
    }
    return used;
}
