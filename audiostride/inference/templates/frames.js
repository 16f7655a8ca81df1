// Recordings of any length: the logits of every frame and the events in them, as models/frames.py and models/events.py.
"use strict";

const joined = (a, b) => { const all = new Float32Array(a.length + b.length); all.set(a); all.set(b, a.length); return all; };

// Frame logits of a recording that arrives in pieces. A trunk that ends in a mean over time runs over pieces that overlap
// by as much as a frame sees (`context`), or, where it sees all, over windows that are cross-faded; any other trunk scores
// windows that slide.
class Frames {
  constructor(engine) {
    this.engine = engine;
    this.plan = engine.model.frames;
    this.total = this.made = 0; // samples that came, frames that were made of them
    this.held = new Float32Array(this.plan.lead); // samples; of these `left` are done
    this.left = this.dropped = this.windows = 0;
    this.sums = [];
  }

  // The frames, {task: logits}, that are known with these samples; at a recording's end all of them.
  push(samples, final = false) {
    this.total += samples.length;
    this.held = joined(this.held, samples);
    const found = this.plan.context === null ? this.overWindows(final) : this.overPieces(final);
    this.made += found.length;
    return found;
  }

  overPieces(final) {
    const { hop, context } = this.plan, { left } = this, { window } = this.engine.model, short = final && this.total < window;
    const sound = short ? joined(this.held, new Float32Array(window - this.total)) : this.held; // as a short clip is classified
    const done = final ? sound.length : left + Math.floor((sound.length - left - context) / hop) * hop;
    if (done <= left) return [];
    const found = this.run(final ? sound : sound.subarray(0, done + context)).slice(left / hop, final ? undefined : done / hop);
    const drop = Math.max(0, done - context);
    this.held = sound.slice(drop); this.left = done - drop;
    return short ? found.slice(0, Math.max(1, Math.ceil(this.total / hop)) - this.made) : found;
  }

  overWindows(final) {
    const { hop, per_window: n, mean } = this.plan, { window } = this.engine.model, shift = Math.max(1, n >> 1), found = [];
    const last = Math.max(1, Math.ceil(this.total / hop - 1e-6)); // frames of the whole recording
    const until = final ? Math.max(1, Math.ceil((last - n) / shift) + 1) : Infinity;
    if (final) this.held = joined(this.held, new Float32Array(2 * window));
    const start = () => toEven(this.windows * shift * hop) - this.dropped;
    const averaged = ({ weight, sums }) => Object.fromEntries(Object.entries(sums).map(([task, sum]) => [task, sum.map((x) => x / weight)]));
    for (; this.windows < until && start() + window <= this.held.length; this.windows++) {
      const part = this.held.subarray(start(), start() + window);
      for (const [i, logits] of (mean ? this.run(part) : [this.engine.logits(part)]).entries()) {
        const faded = Math.min(i + 1, n - i), at = (this.sums[i] ??= { weight: 0, sums: {} });
        at.weight += faded;
        for (const task in logits) { const sum = (at.sums[task] ??= new Float32Array(logits[task].length)); logits[task].forEach((x, k) => { sum[k] += faded * x; }); }
      }
      found.push(...this.sums.splice(0, shift).map(averaged));
    }
    const drop = Math.min(start(), this.held.length);
    this.held = this.held.slice(drop); this.dropped += drop;
    return final ? [...found, ...this.sums.map(averaged)].slice(0, last - this.made) : found;
  }

  run(samples) {
    const logits = this.engine.logits(samples, true), { tasks } = this.engine.model, size = (task) => tasks[task].labels.length;
    const [first] = Object.keys(tasks), frames = logits[first].length / size(first);
    return Array.from({ length: frames }, (_, t) => Object.fromEntries(Object.keys(tasks).map((task) => [task, logits[task].slice(t * size(task), (t + 1) * size(task))])));
  }
}

const toEven = (x) => { const up = Math.round(x); return up - x === 0.5 && up % 2 ? up - 1 : up; }; // as Python rounds

// The events of one task, each as soon as it has ended for certain.
class EventFinder {
  constructor(model, task) {
    const { hop, first } = model.frames, { kind, labels, events } = model.tasks[task], ms = 1000 / model.sample_rate;
    Object.assign(this, { task, kind, labels, ...events, hop_ms: hop * ms, first_ms: first * ms, held: [], start: 0 });
    this.gap = Math.floor(events.join_ms / this.hop_ms + 1e-9);
    this.longest = Math.ceil(600000 / this.hop_ms); // a longer event is given in parts
    this.lowest = { multilabel: events.thresholds, binary: events.thresholds.slice(1) }[kind] ?? [Math.min(...events.thresholds)];
    this.runs = this.lowest.map(() => null); // of each track the stretch of frames that may be an event
  }

  score(logits, track) {
    if (this.kind === "multilabel") return logits[track];
    return this.kind === "binary" ? logits[1] - logits[0] : Math.max(...logits);
  }

  edge(peak) { return this.floor + 0.5 * (peak - this.floor); }

  // The events that have ended by this frame; without one, by the recording's end.
  feed(logits) {
    if (logits) this.held.push(logits);
    const found = [], next = this.start + this.held.length;
    this.runs.forEach((run, track) => {
      if (logits && this.score(logits, track) >= this.edge(this.lowest[track])) {
        run = this.runs[track] ??= { start: next - 1 };
        run.end = next;
      }
      if (!run) return;
      const ended = !logits || next - run.end > this.gap;
      if (!ended && run.end - run.start <= this.longest) return;
      const end = Math.min(run.end, run.start + this.longest);
      found.push(...this.within(track, run.start, end));
      if (end < run.end) run.start = end; else this.runs[track] = null;
    });
    const keep = Math.min(next, ...this.runs.map((run) => run?.start ?? next));
    this.held.splice(0, keep - this.start); this.start = keep;
    return found;
  }

  within(track, start, end) {
    const frames = this.held.slice(start - this.start, end - this.start), scores = frames.map((one) => this.score(one, track));
    const level = this.edge(scores.reduce((a, b) => Math.max(a, b))), found = [];
    for (let a = 0, b; a < scores.length; a = b) {
      b = a + 1;
      if (scores[a] < level) continue;
      for (let next = b; next < scores.length && next - b <= this.gap; next++) if (scores[next] >= level) b = next + 1;
      const heard = frames.slice(a, b).filter((_, i) => scores[a + i] >= level);
      const mean = heard[0].map((_, k) => heard.reduce((sum, one) => sum + one[k], 0) / heard.length);
      const label = this.kind === "multilabel" ? track : this.kind === "binary" ? 1 : mean.indexOf(Math.max(...mean));
      const peak = this.kind === "multiclass" ? Math.max(...heard.map((one) => one[label])) : Math.max(...scores.slice(a, b));
      if ((b - a) * this.hop_ms < this.min_ms || peak < this.thresholds[label]) continue;
      const begin = this.first_ms + (start + a - 0.5) * this.hop_ms;
      found.push({ task: this.task, label: this.labels[label], index: label, start_s: Math.max(0, begin) / 1000, end_s: (begin + (b - a) * this.hop_ms) / 1000, peak, logits: mean });
    }
    return found;
  }
}

// Frames and events of one recording.
class Recording {
  constructor(engine) {
    this.frames = new Frames(engine);
    this.finders = Object.keys(engine.model.tasks).map((task) => new EventFinder(engine.model, task));
    this.rate = engine.model.sample_rate;
  }

  push(samples, final = false) {
    const frames = this.frames.push(samples, final);
    const events = this.finders.flatMap((finder) => [...frames.flatMap((frame) => finder.feed(frame[finder.task])), ...(final ? finder.feed(null) : [])]);
    if (final) for (const event of events) event.end_s = Math.min(event.end_s, this.frames.total / this.rate);
    return { frames, events };
  }
}
