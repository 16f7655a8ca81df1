/* What logits say: probabilities, the likeliest class, and whether it is none of the classes. */
enum { MULTICLASS, BINARY, MULTILABEL };

typedef struct {
    const char *name;
    int first, classes, kind, track, tracks; /* of the logits, and of the stretches that may be events */
    int gap, shortest;                       /* of events, in frames: silence that is ignored, the shortest */
    float floor, temperature, none_below;
    const float *event_thresholds, *thresholds; /* of events, logits; of answers, probabilities, or NULL */
    const char *const *labels;
} TASK;

@THRESHOLDS@
static const TASK tasks[] = {
@TASKS@
};

static int largest(const float *values, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

/* Calibrated probabilities in the place of logits. */
static void probabilities(const TASK *task, float *x)
{
    const float most = x[largest(x, task->classes)];
    float sum = 0;
    for (int i = 0; i < task->classes; i++) {
        x[i] = task->kind == MULTILABEL ? 1 / (1 + expf(-x[i] / task->temperature)) : expf((x[i] - most) / task->temperature);
        sum += x[i];
    }
    for (int i = 0; i < task->classes && task->kind != MULTILABEL; i++)
        x[i] /= sum;
}

static int answer(const TASK *task, const float *logits, float *result)
{
    const int best = largest(logits, task->classes);
    float scores[@MOST_CLASSES@], mean = 0;
    int reached = !task->thresholds || task->kind == BINARY;
    for (int i = 0; i < task->classes; i++)
        mean += logits[i] / (float)task->classes;
    memcpy(scores, logits, (size_t)task->classes * sizeof(float));
    probabilities(task, scores);
    if (result)
        memcpy(result, scores, (size_t)task->classes * sizeof(float));
    for (int i = 0; i < task->classes && !reached; i++)
        reached = (task->kind == MULTILABEL || i == best) && scores[i] >= task->thresholds[i];
    return reached && (task->kind == MULTILABEL || logits[best] - mean >= task->none_below) ? best : -1;
}

@ANSWERS@
