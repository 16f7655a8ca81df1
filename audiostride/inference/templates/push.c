void @NAME@_start(STATE *s)
{
    static const long long rows[@MAPS@] = {@ROWS@};
    s->seen = s->filled = s->ready = 0;
    s->recording = NULL;
    memset(s->made, 0, sizeof s->made);
    memcpy(s->rows, rows, sizeof rows);
}

size_t @NAME@_push(STATE *s, const float *samples, size_t n)
{
    size_t used = 0;
    if (s->ready)
        @NAME@_start(s);
    while (used < n && !s->ready) {
        const size_t left = (size_t)(@UPPER@_WINDOW - s->seen), some = take(s, samples + used, n - used < left ? n - used : left);
        used += some, s->seen += (int)some;
        if (s->seen == @UPPER@_WINDOW) {
            flush(s);
            s->ready = 1;
        }
    }
    return used;
}
