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
        *(@ROW@) = samples[used++];
        s->made[0]++;
        while (advance(s)) {
        }
        s->ready = ++s->seen == @UPPER@_WINDOW;
    }
    return used;
}
