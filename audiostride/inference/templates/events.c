/* Events: where a track of scores peaks above a threshold, from half of the way up from the floor to half of the way down.
 * Of a multiclass task the track is the largest logit, of a binary one the second minus the first, and a multilabel task has
 * one for each class. */
static const float *held(const RECORDING *r, const TASK *task, long long frame)
{
    return (const float *)&r->held[frame % (@UPPER@_EVENT_FRAMES + @GAP@)] + task->first;
}

static float score(const TASK *task, const float *logits, int track)
{
    float best = logits[0];
    if (task->kind != MULTICLASS)
        return task->kind == BINARY ? logits[1] - logits[0] : logits[track];
    for (int i = 1; i < task->classes; i++)
        best = fmaxf(best, logits[i]);
    return best;
}

static float lowest_threshold(const TASK *task, int track)
{
    float lowest = task->event_thresholds[0];
    if (task->kind != MULTICLASS)
        return task->event_thresholds[task->kind == BINARY ? 1 : track];
    for (int i = 1; i < task->classes; i++)
        lowest = fminf(lowest, task->event_thresholds[i]);
    return lowest;
}

/* Where an event begins and ends. */
static float edge(const TASK *task, float peak)
{
    return task->floor + 0.5f * (peak - task->floor);
}

/* An event from frame `a` to before frame `b`, if it is long and high enough. */
static void found(RECORDING *r, const TASK *task, int track, float level, long long a, long long b)
{
    const double hop_s = @FRAME_HOP@ / @UPPER@_SAMPLE_RATE, begin_s = @FIRST@ / @UPPER@_SAMPLE_RATE + ((double)a - 0.5) * hop_s;
    const int multiclass = task->kind == MULTICLASS;
    float mean[@MOST_CLASSES@] = {0}, heard = 0;
    EVENT event = {task->name, NULL, task->kind == BINARY ? 1 : track, 0, 0, -HUGE_VALF, 0};
    for (long long t = a; t < b; t++)
        if (score(task, held(r, task, t), track) >= level) {
            heard++;
            for (int i = 0; i < task->classes; i++)
                mean[i] += held(r, task, t)[i];
        }
    for (int i = 0; i < task->classes; i++)
        mean[i] /= heard;
    if (multiclass)
        event.index = largest(mean, task->classes);
    for (long long t = a; t < b; t++)
        if (score(task, held(r, task, t), track) >= level)
            event.peak = fmaxf(event.peak, multiclass ? held(r, task, t)[event.index] : score(task, held(r, task, t), track));
    if (b - a < task->shortest || event.peak < task->event_thresholds[event.index])
        return;
    probabilities(task, mean);
    event.score = mean[event.index];
    event.label = task->labels[event.index];
    event.start_s = fmax(0, begin_s);
    event.end_s = fmin(begin_s + (double)(b - a) * hop_s, (double)r->samples / @UPPER@_SAMPLE_RATE);
    if (r->event)
        r->event(r->user, &event);
}

/* The events in a stretch of frames whose scores are high enough for the edge of one. */
static void within(RECORDING *r, const TASK *task, int track, long long start, long long end)
{
    float peak = -HUGE_VALF;
    for (long long t = start; t < end; t++)
        peak = fmaxf(peak, score(task, held(r, task, t), track));
    for (long long a = start, b; a < end; a = b) {
        b = a + 1;
        if (score(task, held(r, task, a), track) < edge(task, peak))
            continue;
        for (long long t = b; t < end && t - b <= task->gap; t++)
            if (score(task, held(r, task, t), track) >= edge(task, peak))
                b = t + 1;
        found(r, task, track, edge(task, peak), a, b);
    }
}

/* The events that have ended by the last frame, or by the recording's end. */
static void find(RECORDING *r, int final)
{
    for (size_t k = 0; k < sizeof tasks / sizeof *tasks; k++)
        for (int track = 0; track < tasks[k].tracks; track++) {
            const TASK *task = &tasks[k];
            long long *start = &r->runs[task->track + track].start, *end = &r->runs[task->track + track].end;
            if (!final && score(task, held(r, task, r->frames - 1), track) >= edge(task, lowest_threshold(task, track))) {
                if (*end < 0)
                    *start = r->frames - 1;
                *end = r->frames;
            }
            if (*end - *start > @UPPER@_EVENT_FRAMES) {
                within(r, task, track, *start, *start + @UPPER@_EVENT_FRAMES);
                *start += @UPPER@_EVENT_FRAMES;
            }
            if (*end >= 0 && (final || r->frames - *end > task->gap)) {
                within(r, task, track, *start, *end);
                *start = *end = -1;
            }
        }
}

/* The logits of the next frame, unless they are of the silence behind a short recording. */
static void hear_frame(RECORDING *r, const LOGITS *logits)
{
    if (r->frames == r->last)
        return;
    r->held[r->frames % (@UPPER@_EVENT_FRAMES + @GAP@)] = *logits;
    if (r->frame)
        r->frame(r->user, (@FIRST@ + (double)r->frames * @FRAME_HOP@) / @UPPER@_SAMPLE_RATE, logits);
    r->frames++;
    find(r, 0);
}

void @NAME@_begin(RECORDING *r, void (*event)(void *user, const EVENT *event),
    void (*frame)(void *user, double time_s, const LOGITS *logits), void *user)
{
    @NAME@_start(&r->state);
    r->event = event, r->frame = frame, r->user = user;
    r->samples = r->frames = 0, r->last = -1;
    memset(r->runs, -1, sizeof r->runs);
    begin_frames(r);
}
