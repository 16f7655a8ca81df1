"use strict";
const element = (id) => document.getElementById(id);
const model = JSON.parse(element("model").textContent);
const rate = model.sample_rate, length = model.window, { hop, first } = model.frames;

const worker = new Worker(URL.createObjectURL(new Blob([element("engine").textContent], { type: "text/javascript" })));
const waiting = new Map();
let jobs = 0;
worker.onmessage = ({ data }) => { waiting.get(data.id)(data.answer); waiting.delete(data.id); };
const ask = (job, message) => new Promise((resolve) => { waiting.set(++jobs, resolve); worker.postMessage({ id: jobs, job, ...message }); });
const bytes = Uint8Array.from(atob(element("weights").textContent), (c) => c.charCodeAt(0));
worker.postMessage({ model, weights: bytes.buffer }, [bytes.buffer]);

// --- Answers. ---

// Where the windows of a clip begin: one behind the other, the last one at the clip's end; a short clip in the centre.
function windowStarts(n) {
  if (n <= length) return [-Math.floor((length - n) / 2)];
  const starts = [];
  for (let start = 0; start + length <= n; start += length) starts.push(start);
  if (n % length) starts.push(n - length);
  return starts;
}

// Calibrated probability of each class.
function probabilities(task, logits) {
  const { kind, temperature } = model.tasks[task], values = Array.from(logits, (x) => x / temperature);
  if (kind === "multilabel") return values.map((x) => 1 / (1 + Math.exp(-x)));
  const top = Math.max(...values), parts = values.map((x) => Math.exp(x - top)), sum = parts.reduce((a, b) => a + b);
  return parts.map((x) => x / sum);
}

// The classes that logits stand for; none where no class is likely enough.
function answer(task, logits) {
  const { kind, labels, thresholds, none_below } = model.tasks[task], scores = probabilities(task, logits), best = scores.indexOf(Math.max(...scores));
  if (kind === "multilabel") {
    const heard = labels.filter((_, i) => scores[i] >= (thresholds[i] ?? 0.5));
    return heard.length || thresholds.length ? heard : [labels[best]];
  }
  const clear = logits[best] - logits.reduce((a, b) => a + b) / logits.length;
  const is_none = (none_below !== null && clear < none_below) || (kind === "multiclass" && scores[best] < (thresholds[best] ?? 0));
  return is_none ? [] : [labels[best]];
}

// Logits of each task of a clip, averaged over its windows.
async function classify(samples) {
  const logits = await ask("logits", { samples, starts: windowStarts(samples.length) }), mean = {};
  for (const task in model.tasks) mean[task] = logits[0][task].map((_, i) => logits.reduce((sum, one) => sum + one[task][i], 0) / logits.length);
  return mean;
}

// --- The recording that is shown: all of a file, the last ten seconds from a microphone. ---

const LIVE_S = 10, BLOCK_S = 20;
let shown = null, task = Object.keys(model.tasks)[0];

function begin(name, live) { shown = { name, live, samples: new Float32Array(0), from: 0, frames: [], frame: 0, events: [], first: true }; }

// The next samples of it, `from` counts those that are no longer kept, `frame` the frames.
async function hear(samples, final = false) {
  const own = shown, { frames, events } = await ask("push", { samples, first: own.first, final });
  own.first = false;
  own.frames.push(...frames);
  own.events.push(...events.map((event) => ({ ...event, score: probabilities(event.task, event.logits)[event.index] })));
  own.events.sort((a, b) => a.start_s - b.start_s);
  if (own.live) {
    const joined = new Float32Array(own.samples.length + samples.length), over = Math.max(0, joined.length - LIVE_S * rate);
    joined.set(own.samples); joined.set(samples, own.samples.length);
    own.samples = joined.slice(over); own.from += over;
    const gone = Math.min(own.frames.length, Math.max(0, Math.floor((own.from - length - first) / hop) - own.frame));
    own.frames.splice(0, gone); own.frame += gone;
  }
  return { frames, events };
}

// Frames and events of a whole recording, for scripts and tests.
async function events(samples) { begin("", false); return hear(samples, true); }
window.audiostride = { classify, answer, probabilities, events, windowStarts, model };

// --- What is shown. ---

const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = (i) => (dark.matches ? ["#7db4e6", "#f4a582", "#a6dba0", "#fdb863", "#c2a5cf", "#80cdc1", "#dfc27d", "#f1b6da"] : ["#2166ac", "#b2182b", "#1b7837", "#b35806", "#762a83", "#01665e", "#8c510a", "#c51b7d"])[i % 8];
const percent = (score) => `${(100 * score).toFixed(1)} %`;

function make(kind, name = "", text = "") {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (text) made.textContent = text;
  return made;
}

function show(logits) {
  element("answers").replaceChildren(...Object.keys(model.tasks).map((task) => {
    const { labels } = model.tasks[task], scores = probabilities(task, logits[task]);
    const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]).slice(0, 5);
    const box = make("div", "task"), name = make("p", "soft", task), said = make("p", "answer", answer(task, logits[task]).join(", ") || "none");
    said.dataset.task = task;
    box.append(name, said, ...order.map((i) => {
      const bar = make("div", "bar"), track = make("div"), fill = make("i");
      fill.style.width = `${100 * scores[i]}%`;
      track.append(fill);
      bar.append(make("span", "", labels[i]), track, make("span", "", percent(scores[i])));
      return bar;
    }));
    return box;
  }));
}

function canvas(id) {
  const area = element(id), scale = window.devicePixelRatio || 1;
  area.width = area.clientWidth * scale; area.height = area.clientHeight * scale;
  return area.getContext("2d");
}

async function draw() {
  if (!shown) return;
  const own = shown, picture = model.log_mel ? await ask("picture", { samples: own.samples, columns: 1200 }) : null;
  if (own !== shown) return;
  const begin_s = own.from / rate, seconds = Math.max(own.samples.length, own.live ? LIVE_S * rate : 1) / rate;
  const x = (at_s, width) => ((at_s - begin_s) / seconds) * width;
  drawSound(own, picture, seconds);
  drawEvents(own, x);
  drawTimeline(own, x);
  listEvents(own);
}

function drawSound(own, picture, seconds) {
  const context = canvas("spectrogram"), { width, height } = context.canvas, part = (own.samples.length / rate / seconds) * width;
  if (!picture) { // of a waveform its largest and smallest samples
    context.fillStyle = getComputedStyle(document.body).color;
    for (let column = 0, n = own.samples.length; column < part; column++) {
      const some = own.samples.subarray((column / part) * n, Math.max(((column + 1) / part) * n, (column / part) * n + 1));
      const low = Math.min(...some.subarray(0, 4096)), high = Math.max(...some.subarray(0, 4096));
      context.fillRect(column, ((1 - high) * height) / 2, 1, Math.max(1, ((high - low) * height) / 2));
    }
    return;
  }
  if (!picture.length) return;
  const bands = model.log_mel.n_mels, frames = picture.length / bands, image = new ImageData(frames, bands);
  let low = Infinity, high = -Infinity;
  for (const value of picture) { low = Math.min(low, value); high = Math.max(high, value); }
  for (let t = 0; t < frames; t++)
    for (let b = 0; b < bands; b++) {
      const x = (picture[t * bands + b] - low) / (high - low || 1), at = 4 * ((bands - 1 - b) * frames + t);
      image.data.set([255 * Math.min(1, 1.6 * x * x), 255 * x ** 3, 255 * (0.2 + 0.5 * x * (1 - x) * 2), 255], at);
    }
  const small = new OffscreenCanvas(frames, bands);
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, part, height);
}

// A bar with its class over the spectrogram for each event of the task that is chosen.
function drawEvents(own, x) {
  const context = element("spectrogram").getContext("2d"), { width } = context.canvas, scale = window.devicePixelRatio || 1;
  context.font = `600 ${12 * scale}px system-ui`;
  for (const event of own.events.filter((event) => event.task === task)) {
    const begin = x(event.start_s, width), wide = Math.max(2 * scale, x(event.end_s, width) - begin);
    if (begin + wide < 0) continue;
    context.fillStyle = colour(event.index);
    context.fillRect(begin, 0, wide, 18 * scale);
    context.fillStyle = dark.matches ? "#000" : "#fff";
    context.save();
    context.beginPath(); context.rect(begin, 0, wide, 18 * scale); context.clip();
    context.fillText(event.label, Math.max(begin, 0) + 4 * scale, 13 * scale);
    context.restore();
  }
}

// Lines of the probability of up to five classes; at each frame the one of the window around it, of its mean logits.
function drawTimeline(own, x) {
  const context = canvas("timeline"), { width, height } = context.canvas, scale = window.devicePixelRatio || 1;
  context.strokeStyle = getComputedStyle(document.body).color; context.lineWidth = scale / 2;
  context.strokeRect(0, 0, width, height);
  const around = model.frames.mean ? model.frames.per_window : 1, { labels } = model.tasks[task];
  const every = Math.max(1, Math.floor(own.frames.length / width)), points = [];
  for (let i = 0; i < own.frames.length; i += every) {
    const some = own.frames.slice(Math.max(0, i - (around >> 1)), i + ((around + 1) >> 1));
    const mean = labels.map((_, k) => some.reduce((sum, one) => sum + one[task][k], 0) / some.length);
    points.push([x((first + (own.frame + i) * hop) / rate, width), probabilities(task, mean)]);
  }
  if (!points.length) return;
  const best = labels.map((_, k) => points.reduce((most, [, one]) => Math.max(most, one[k]), 0));
  const order = best.map((_, k) => k).sort((a, b) => best[b] - best[a]).filter((k, rank) => rank < 5 && (rank === 0 || best[k] >= 0.05));
  for (const k of order) {
    context.strokeStyle = colour(k);
    context.lineWidth = 2 * scale;
    context.beginPath();
    for (const [at, scores] of points) context.lineTo(at, (1 - scores[k]) * (height - 6 * scale) + 3 * scale);
    context.stroke();
  }
  element("legend").replaceChildren(...order.map((k) => { const item = make("li", "", labels[k]); item.style.setProperty("--colour", colour(k)); return item; }));
}

function listEvents(own) {
  const found = own.events.filter((event) => event.task === task), most = found.slice(own.live ? -100 : 0, own.live ? undefined : 1000);
  if (own.live) most.reverse();
  element("events").replaceChildren(...most.map((event) => {
    const row = make("tr"), last = make("td");
    row.append(...[event.start_s.toFixed(2), event.end_s.toFixed(2), event.label, percent(event.score)].map((text) => make("td", "", text)), last);
    if (own.sound) {
      const button = make("button", "", "Play");
      button.setAttribute("aria-label", `Play ${event.label} from ${event.start_s.toFixed(2)} s`);
      button.onclick = () => play(event.start_s, event.end_s - event.start_s);
      last.append(button);
    }
    return row;
  }));
  element("heard").textContent = `Events of ${task}: ${found.length || "none"}`;
  element("thresholds").textContent = model.tasks[task].found ? "" : "By default thresholds; those that fit your recordings are found by “audiostride calibrate RUN --events FOLDER”.";
  for (const id of ["csv", "audacity"]) element(id).disabled = !own.events.length;
}

// --- A file. ---

async function open(file) {
  listening.stop(); silence();
  const say = (text) => { element("status").textContent = text; };
  say(`Reading ${file.name} …`);
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await file.arrayBuffer());
  } catch {
    say(`${file.name} is no sound that this browser can read; try a WAV file.`);
    return;
  }
  const samples = new Float32Array(sound.length);
  for (let c = 0; c < sound.numberOfChannels; c++) sound.getChannelData(c).forEach((x, i) => { samples[i] += x / sound.numberOfChannels; });
  if (!samples.length) { say(`${file.name} holds no samples.`); return; }
  begin(file.name, false);
  const own = Object.assign(shown, { samples, sound });
  for (let at = 0; at < samples.length; at += BLOCK_S * rate) {
    if (at) say(`Reading ${file.name} … ${Math.round((100 * at) / samples.length)} %`);
    await hear(samples.slice(at, at + BLOCK_S * rate), at + BLOCK_S * rate >= samples.length);
    if (own !== shown) return; // another one was opened
  }
  show(await classify(samples));
  await draw();
  const answers = [...document.querySelectorAll(".answer")].map((answer) => `${answer.dataset.task}: ${answer.textContent}`).join(", ");
  say(`${file.name}: ${(samples.length / rate).toFixed(2)} s. ${answers}. ${own.events.length} events.`);
  element("play").hidden = element("listen").hidden = false;
}
element("file").onchange = ({ target }) => target.files[0] && open(target.files[0]);
document.ondragover = (event) => { event.preventDefault(); element("main").classList.add("over"); };
document.ondragleave = () => element("main").classList.remove("over");
document.ondrop = (event) => { event.preventDefault(); element("main").classList.remove("over"); if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]); };

let source = null;
function silence() { source?.stop(); source = null; element("play").textContent = "Play"; }
function play(start_s, seconds) {
  silence();
  const player = new AudioContext(), own = (source = new AudioBufferSourceNode(player, { buffer: shown.sound }));
  own.connect(player.destination);
  own.onended = () => { player.close(); if (source === own) silence(); };
  own.start(0, start_s, seconds);
  element("play").textContent = "Stop";
}
element("play").onclick = () => (source ? silence() : play(0));

function save(ending, text) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = shown.name.replace(/\.\w+$/, "") + ending;
  link.click();
  URL.revokeObjectURL(link.href);
}
const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
element("csv").onclick = () => save(".events.csv", [["file", "task", "start_s", "end_s", "rank", "label", "score"], ...shown.events.map((e) => [shown.name, e.task, e.start_s.toFixed(3), e.end_s.toFixed(3), 1, e.label, e.score.toFixed(6)])].map((row) => row.map((cell) => quoted(String(cell))).join(",") + "\n").join(""));
element("audacity").onclick = () => save(".txt", shown.events.filter((e) => e.task === task).map((e) => `${e.start_s.toFixed(6)}\t${e.end_s.toFixed(6)}\t${e.label.replace(/\s+/g, " ")}\n`).join(""));

// --- The microphone: four times a second what came is heard, and the last window is classified. ---

const listening = {
  context: null,
  async start() {
    if (!navigator.mediaDevices) throw new Error("a browser gives the microphone to pages from https:// or http://localhost only, or from a file that was opened");
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    silence();
    this.context = new AudioContext({ sampleRate: rate });
    const tap = `registerProcessor("tap", class extends AudioWorkletProcessor { process([input]) { if (input[0]) this.port.postMessage(input[0].slice()); return true; } });`;
    await this.context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(tap)}`); // a page opened from a file may load it, but no blob
    const node = new AudioWorkletNode(this.context, "tap");
    begin("microphone", true);
    const own = shown;
    let come = [], n = 0, busy = false;
    node.port.onmessage = async ({ data }) => {
      come.push(data); n += data.length;
      if (busy || n < rate / 4 || own !== shown) return;
      const samples = new Float32Array(n);
      come.reduce((at, part) => { samples.set(part, at); return at + part.length; }, 0);
      come = []; n = 0; busy = true;
      const { events } = await hear(samples);
      if (events.length) element("status").textContent = `Listening. ${events.map((event) => event.label).join(", ")}`;
      show(await classify(own.samples.slice(-length)));
      await draw();
      busy = false;
    };
    this.context.createMediaStreamSource(stream).connect(node);
    this.stream = stream;
    element("play").hidden = element("listen").hidden = true;
    element("microphone").setAttribute("aria-pressed", "true");
    element("microphone").textContent = "Stop listening";
    element("status").textContent = "Listening.";
  },
  stop() {
    if (!this.context) return;
    this.stream.getTracks().forEach((track) => track.stop());
    this.context.close(); this.context = null;
    element("microphone").setAttribute("aria-pressed", "false");
    element("microphone").textContent = "Use the microphone";
    element("status").textContent = "";
  },
};
element("microphone").onclick = () => listening.context ? listening.stop() : listening.start().catch((error) => { element("status").textContent = `No microphone: ${error.message || error.name}.`; });

// --- What the model is. ---

element("what").textContent = Object.entries(model.tasks).map(([task, { labels }]) => `${task}: ${labels.length} classes`).join(" · ") + ` · windows of ${(length / rate).toFixed(2).replace(/\.?0+$/, "")} s at ${rate / 1000} kHz`;
element("choice").hidden = Object.keys(model.tasks).length < 2;
element("task").append(...Object.keys(model.tasks).map((name) => make("option", "", name)));
element("task").onchange = ({ target }) => { task = Object.keys(model.tasks)[target.selectedIndex]; draw(); };
dark.onchange = window.onresize = draw;
for (const [title, rows] of Object.entries(model.about)) {
  const table = make("table");
  for (const [name, value] of rows) { const row = make("tr"), head = make("th", "", name); head.scope = "row"; row.append(head, make("td", "", value)); table.append(row); }
  element("about").append(make("h2", "", title), table);
}
