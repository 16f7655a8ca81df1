/* Take a sample, which is a row of the input, and say how many there were. */
static size_t take(STATE *s, const float *samples, size_t n)
{
    *(@ROW@) = *samples;
    s->made[0]++;
    while (advance(s)) {
    }
    return n ? 1 : 0;
}

/* What is left of a sound that has ended. */
static void flush(STATE *s)
{
    while (advance(s)) {
    }
}
