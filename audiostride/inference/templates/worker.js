// What the page asks of its worker, so that it never waits for the classifier.
"use strict";

let engine, recording;
const answers = {
  // Logits of the windows that begin at these samples.
  logits: ({ samples, starts }) => starts.map((start) => {
    const window = new Float32Array(engine.model.window);
    window.set(samples.subarray(Math.max(0, start), Math.max(0, start) + window.length), Math.max(0, -start));
    return engine.logits(window);
  }),
  // Frames and events of a recording that is pushed piece by piece.
  push: ({ samples, first, final }) => {
    if (first) recording = new Recording(engine);
    return recording.push(samples, final);
  },
  // Log-mel of every few frames, no more than a picture has columns.
  picture: ({ samples, columns }) => engine.logMel(samples, Math.max(1, Math.ceil(samples.length / engine.model.log_mel.hop / columns))),
};
onmessage = ({ data }) => {
  if (data.model) engine = new Engine(data.model, new Float32Array(data.weights));
  else postMessage({ id: data.id, answer: answers[data.job](data) });
};
