// The classifier: log-mel and the list of operations on typed arrays, in a worker. A map is [time][channel][mel].
"use strict";

class Engine {
  constructor(model, weights) {
    this.model = model;
    this.weights = weights;
    if (model.log_mel) this.prepareLogMel(model.log_mel);
  }

  array(place) { return this.weights.subarray(place[0], place[0] + place[1]); }

  // --- Log-mel: frames under a window, FFT, mel bands, logarithm of power. ---

  prepareLogMel({ n_fft, window, filters }) {
    this.window = this.array(window);
    this.filters = this.array(filters.weights);
    this.cos = new Float64Array(n_fft / 2);
    this.sin = new Float64Array(n_fft / 2);
    for (let k = 0; k < n_fft / 2; k++) {
      this.cos[k] = Math.cos((2 * Math.PI * k) / n_fft);
      this.sin[k] = Math.sin((2 * Math.PI * k) / n_fft);
    }
    this.re = new Float64Array(n_fft);
    this.im = new Float64Array(n_fft);
  }

  fft(re, im) {
    const n = re.length;
    for (let i = 1, j = 0; i < n; i++) { // bit reversal
      let bit = n >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) { [re[i], re[j]] = [re[j], re[i]]; [im[i], im[j]] = [im[j], im[i]]; }
    }
    for (let size = 1; size < n; size *= 2) {
      const step = n / (2 * size);
      for (let j = 0; j < size; j++) {
        const c = this.cos[j * step], s = this.sin[j * step];
        for (let a = j, b; a < n; a += 2 * size) {
          b = a + size;
          const x = re[b] * c + im[b] * s, y = im[b] * c - re[b] * s;
          re[b] = re[a] - x; im[b] = im[a] - y; re[a] += x; im[a] += y;
        }
      }
    }
  }

  // Frame t covers the samples from t hops on; silence follows the last one. For pictures, every `step`-th frame.
  logMel(samples, step = 1) {
    const { n_mels, offset, filters } = this.model.log_mel, hop = step * this.model.log_mel.hop, { re, im, window } = this;
    const frames = Math.floor(samples.length / hop), out = new Float32Array(frames * n_mels);
    for (let t = 0; t < frames; t++) {
      re.fill(0); im.fill(0);
      const end = Math.min(window.length, samples.length - t * hop);
      for (let i = 0; i < end; i++) re[i] = samples[t * hop + i] * window[i];
      this.fft(re, im);
      for (let band = 0, at = 0; band < n_mels; band++) {
        let power = 0;
        for (let k = filters.begin[band]; k < filters.end[band]; k++) power += this.filters[at++] * (re[k] * re[k] + im[k] * im[k]);
        out[t * n_mels + band] = Math.log(power + offset);
      }
    }
    return out;
  }

  // --- The operations. ---

  // Logits of each task for the features of a window, or of any length where the list allows it; or those of each frame.
  run(features, eachFrame) {
    const first = this.model.input, maps = [{ data: features, channels: 1, time: features.length / first[2], mel: first[2] }];
    const logits = {};
    for (const step of this.model.steps) {
      const sources = step.sources.map((i) => maps[i]);
      const made = eachFrame && step.kind === "reduce" ? this.overMel(...sources) : this[step.kind](step, ...sources);
      if (step.relu) for (let i = 0; i < made.data.length; i++) if (made.data[i] < 0) made.data[i] = 0;
      if (step.task !== undefined) logits[step.task] = made.data;
      maps.push(made);
    }
    return logits;
  }

  convolution(step, x) {
    const { kernel: [kt, km], stride: [st, sm], padding: [pt, pm], groups, outputs } = step;
    const weights = this.array(step.weight), bias = this.array(step.bias);
    const time = Math.floor((x.time + 2 * pt - kt) / st) + 1, mel = Math.floor((x.mel + 2 * pm - km) / sm) + 1;
    const inputs = x.channels / groups, per = outputs / groups, size = inputs * kt * km;
    const data = new Float32Array(time * outputs * mel), patches = new Float32Array(size * mel + 3);
    for (let t = 0; t < time; t++) {
      for (let g = 0; g < groups; g++) {
        let at = 0;
        for (let c = g * inputs; c < (g + 1) * inputs; c++)
          for (let a = 0; a < kt; a++) {
            const frame = t * st - pt + a, row = (frame * x.channels + c) * x.mel, inside = frame >= 0 && frame < x.time;
            for (let b = 0; b < km; b++)
              for (let w = 0; w < mel; w++) {
                const band = w * sm - pm + b;
                patches[at++] = inside && band >= 0 && band < x.mel ? x.data[row + band] : 0;
              }
          }
        for (let o = g * per; o < (g + 1) * per; o++) {
          const base = o * size, out = (t * outputs + o) * mel;
          for (let w = 0; w < mel; w += 4) { // four bands at once; what lies behind the last one is not kept
            let p = bias[o], q = p, r = p, s = p;
            for (let k = 0, i = w; k < size; k++, i += mel) {
              const weight = weights[base + k];
              p += weight * patches[i]; q += weight * patches[i + 1]; r += weight * patches[i + 2]; s += weight * patches[i + 3];
            }
            data[out + w] = p;
            if (w + 1 < mel) data[out + w + 1] = q;
            if (w + 2 < mel) data[out + w + 2] = r;
            if (w + 3 < mel) data[out + w + 3] = s;
          }
        }
      }
    }
    return { data, channels: outputs, time, mel };
  }

  affine(step, x) {
    const scale = this.array(step.scale), shift = this.array(step.shift), data = new Float32Array(x.data.length);
    for (let i = 0; i < data.length; i++) {
      const c = Math.floor(i / x.mel) % x.channels;
      data[i] = x.data[i] * scale[c] + shift[c];
    }
    return { ...x, data };
  }

  matrix(step, x) {
    const [groups, m, n] = step.size, matrix = this.array(step.matrix), part = x.channels / groups;
    const overTime = step.axis === "time", time = overTime ? m : x.time, mel = overTime ? x.mel : m;
    const data = new Float32Array(time * x.channels * mel);
    for (let t = 0; t < time; t++)
      for (let c = 0; c < x.channels; c++)
        for (let w = 0; w < mel; w++) {
          let sum = 0, row = (Math.floor(c / part) * m + (overTime ? t : w)) * n;
          const from = overTime ? c * x.mel + w : (t * x.channels + c) * x.mel, step = overTime ? x.channels * x.mel : 1;
          for (let k = 0, i = from; k < n; k++, i += step) sum += matrix[row++] * x.data[i];
          data[(t * x.channels + c) * mel + w] = sum;
        }
    return { data, channels: x.channels, time, mel };
  }

  add(step, x, y) { return { ...x, data: x.data.map((value, i) => value + y.data[i]) }; }

  relu(step, x) { return { ...x, data: x.data.map((value) => Math.max(0, value)) }; }

  average(step, x) {
    const [st, sm] = step.size, time = Math.ceil(x.time / st), mel = Math.ceil(x.mel / sm);
    const data = new Float32Array(time * x.channels * mel);
    for (let t = 0; t < time; t++)
      for (let c = 0; c < x.channels; c++)
        for (let w = 0; w < mel; w++) {
          let sum = 0, n = 0;
          for (let a = t * st; a < Math.min(x.time, (t + 1) * st); a++)
            for (let b = w * sm; b < Math.min(x.mel, (w + 1) * sm); b++, n++) sum += x.data[(a * x.channels + c) * x.mel + b];
          data[(t * x.channels + c) * mel + w] = sum / n;
        }
    return { data, channels: x.channels, time, mel };
  }

  pick(step, x) {
    const [st, sm] = step.step, time = Math.ceil(x.time / st), mel = Math.ceil(x.mel / sm);
    const data = new Float32Array(time * x.channels * mel);
    for (let i = 0; i < data.length; i++) {
      const w = i % mel, c = Math.floor(i / mel) % x.channels, t = Math.floor(i / mel / x.channels);
      data[i] = x.data[(t * st * x.channels + c) * x.mel + w * sm];
    }
    return { data, channels: x.channels, time, mel };
  }

  reshape(step, x) { return { data: x.data, channels: x.channels * x.mel, time: x.time, mel: 1 }; }

  reduce(step, x) {
    const data = new Float32Array(x.channels), sums = new Float64Array(x.channels).fill(step.reduce === "max" ? -Infinity : 0);
    for (let t = 0, i = 0; t < x.time; t++)
      for (let c = 0; c < x.channels; c++)
        for (let w = 0; w < x.mel; w++, i++) sums[c] = step.reduce === "max" ? Math.max(sums[c], x.data[i]) : sums[c] + x.data[i];
    for (let c = 0; c < x.channels; c++) data[c] = step.reduce === "max" ? sums[c] : sums[c] / (x.time * x.mel);
    return { data };
  }

  join(step, ...parts) { return { data: Float32Array.from(parts.flatMap((part) => [...part.data])) }; }

  // What the mean over time is taken of.
  overMel(x) {
    const data = new Float32Array(x.time * x.channels);
    for (let i = 0; i < x.data.length; i++) data[Math.floor(i / x.mel)] += x.data[i] / x.mel;
    return { data };
  }

  // For each vector one behind the other.
  head(step, x) {
    const weights = this.array(step.weight), bias = this.array(step.bias), outputs = bias.length, inputs = weights.length / outputs;
    const data = new Float32Array((x.data.length / inputs) * outputs);
    for (let i = 0; i < data.length; i++) {
      const o = i % outputs, from = Math.floor(i / outputs) * inputs;
      let sum = bias[o];
      for (let k = 0; k < inputs; k++) sum += weights[o * inputs + k] * x.data[from + k];
      data[i] = sum;
    }
    return { data };
  }

  // Logits of a window of samples, or of each frame of any number of them.
  logits(samples, eachFrame = false) { return this.run(this.model.log_mel ? this.logMel(samples) : samples, eachFrame); }
}
