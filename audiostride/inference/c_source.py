"""A classifier as one C99 file and its header: no allocation, no library but libm, features inside.

The state is one struct of constant size, and samples are pushed as they arrive. What computes the network is written in
`c_operations`, everything else is in `templates`.
"""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..mel_scale import LOG_OFFSET
from ..models.classifier import AudioClassifier
from ..models.log_mel import LogMel
from .c_operations import RowCode, c_array, c_float
from .operations import Operation, operations
from .source_parts import fft_length, fill, fill_template, frame_plan, sparse_filters

LONGEST_EVENT_S = 10.0
"""A longer event is given in parts: a C file has the memory for this one, unless it is compiled with another length."""

MAX_TEST_WINDOWS = 4
"""Windows of sound in the test of a C file, which a compiler reads as text."""

_KEYWORDS = re.compile(
    "auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long|register|"
    "restrict|return|short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|volatile|while"
)


def c_identifiers(names: Iterable[str]) -> dict[str, str]:
    """A C identifier for each name, as close to it as can be, no two alike.

    Example:
        >>> c_identifiers(["my words-2", "my_words_2", "2 é", "int"])
        {'my words-2': 'my_words_2', 'my_words_2': 'my_words_2_', '2 é': 'the_2__', 'int': 'the_int'}
    """
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not re.match(r"[A-Za-z]", plain) or _KEYWORDS.fullmatch(plain):
            plain = f"the_{plain}"
        while plain in found.values():
            plain += "_"
        found[name] = plain
    return found


def c_string(text: str) -> str:
    r"""A C string literal of the UTF-8 bytes of any text.

    Example:
        >>> print(c_string('say "no"?'), c_string("\n0é"))
        "say \"no\"\?" "\0120\303\251"
    """
    shown = {b: f"\\{chr(b)}" for b in b'"\\?'}  # the question mark, so that no trigraph comes about
    content = text.encode("utf-8", "surrogateescape")
    return '"' + "".join(shown.get(b, chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in content) + '"'


def c_files(
    model: AudioClassifier, name: str, windows: np.ndarray, logits: Sequence[np.ndarray], int8: bool = False
) -> dict[str, str]:
    """The C file, its header and its test.

    Args:
        model: the classifier.
        name: of the files, and the prefix of every public name in them; a C identifier.
        windows: float32 ``(n, samples)``, sounds that the test runs on.
        logits: for each task ``(n, classes)``, what the model gives for them.
        int8: weights of convolutions and heads in 8 bits, with a scale for each output channel.

    Returns:
        Content of "NAME.h", "NAME.c" and "NAME_test.c" by name.

    Raises:
        UsageError: if the model's frontend is neither `LogMel` nor `RawWaveform`, its FFT has a length that is no power
            of two, or its trunk an operation that is not in the list, see `operations.operations`.
    """
    writer = _Writer(model, name, operations(model), int8)
    return {
        f"{name}.h": writer.header(),
        f"{name}.c": writer.source(),
        f"{name}_test.c": _test(writer, windows[:MAX_TEST_WINDOWS], [v[:MAX_TEST_WINDOWS] for v in logits]),
    }


class _Writer:
    """One model on its way to C; `values` are those of the templates."""

    def __init__(self, model: AudioClassifier, name: str, steps: Sequence[Operation], int8: bool):
        self.model, self.name, self.tasks = model, name, c_identifiers(model.labels)
        log_mel = model.frontend if isinstance(model.frontend, LogMel) else None
        hop = log_mel.hop_length if log_mel else 1
        shape = (1, model.window_length // hop, log_mel.n_mels if log_mel else 1)
        plan = frame_plan(model)
        self.is_endless = plan["context"] is not None
        endless = range(0)
        if self.is_endless:
            seen = 2 * plan["context"] // hop
            endless = range(seen, seen + plan["hop"] // hop)
        self.code = RowCode(steps, shape, self.tasks, int8, plan["mean"], endless)
        self.values: dict[str, Any] = {
            "NAME": name,
            "UPPER": name.upper(),
            "SAMPLE_RATE": model.sample_rate,
            "WINDOW": model.window_length,
            "MAPS": len(self.code.shapes),
            "ROWS": ", ".join(str(shape[1] if len(shape) == 3 else 1) for shape in self.code.shapes),
            "HOP": hop,
            "ROW": self.code.row(0, "s->made[0]"),
            "WEIGHT": "int8_t" if int8 else "float",
            "FIRST": plan["first"],
            "FRAME_HOP": float(plan["hop"]),
            "WHOLE_HOP": int(plan["hop"]),
            "PER_WINDOW": plan["per_window"],
            "SHIFT": max(1, plan["per_window"] // 2),
            "MEAN": int(plan["mean"]),
            "LEAD": plan["lead"],
        }
        self.memory = self.code.memory
        if log_mel:
            n_fft, buffer = fft_length(log_mel, "a C file"), max(len(log_mel.window), hop)
            self.values |= {"BUFFER": buffer, "TABLES": _log_mel_tables(log_mel, n_fft)}
            self.memory.insert(0, f"float samples[{buffer}], re[{n_fft // 2 + 1}], im[{n_fft // 2 + 1}];")
        self.values |= self._tasks(1000 * plan["hop"] / model.sample_rate)

    def header(self) -> str:
        """Sizes, state, functions."""
        tasks = [(self.tasks[task], len(labels)) for task, labels in self.model.labels.items()]
        windows = [
            "float window[@UPPER@_WINDOW], weights[@PER_WINDOW@];",
            "@NAME@_logits sums[@PER_WINDOW@];",
            "long long windows;",
            "int filled, in_window;",
        ]
        lines = {
            "LOGITS": [f"    float {task}[{n}];" for task, n in tasks],
            "LABELS": [
                f"extern const char *const {self.name}_{task}_labels[{n}];\n{self._answer(task)};" for task, n in tasks
            ],
            "MEMORY": [f"    {line}" for line in self.memory],
            "RECORDING_MEMORY": [] if self.is_endless else [f"    {fill(line, self.values)}" for line in windows],
        }
        return fill_template("header.h", self.values | {key: "\n".join(some) for key, some in lines.items()})

    def source(self) -> str:
        """Constants, kernels, the operations one after the other, and what is called from outside."""
        has_log_mel = "TABLES" in self.values
        code, used = "\n".join(f"    {line}" for line in self.code.lines), "\n".join(self.code.lines)
        kernels: list[str] = []
        for part in reversed(fill_template("kernels.c", self.values).split("\n\n")):
            found = re.search(r"^static \w+ (\w+)\(", part, re.MULTILINE)
            if found is None or f"{found[1]}(" in used:  # a function comes behind those that it calls
                kernels.insert(0, part)
                used += part
        labels = [
            f"const char *const {self.name}_{self.tasks[task]}_labels[{len(texts)}] = {{\n    "
            + ",\n    ".join(map(c_string, texts))
            + "};\n"
            for task, texts in self.model.labels.items()
        ]
        ending = {"ROWS": "\n".join(f"    {line}" for line in self.code.rows_lines())}
        recording = "recording_pieces.c" if self.is_endless else "recording_windows.c"
        parts = {
            "CONSTANTS": "\n".join([*self.code.constants, *labels]),
            "KERNELS": "\n\n".join(kernels),
            "FEATURES": fill_template("log_mel.c", self.values) if has_log_mel else "",
            "STEPS": code,
            "INPUT": fill_template("input_log_mel.c" if has_log_mel else "input_waveform.c", self.values),
            "PUSH": fill_template("push.c", self.values),
            "ANSWER": fill_template("answers.c", self.values),
            "EVENTS": fill_template("events.c", self.values),
            "RECORDING": fill_template(recording, self.values | ending),
        }
        return fill_template("source.c", self.values | parts)

    def _answer(self, task: str) -> str:
        return f"int {self.name}_{task}_answer(const {self.name}_logits *logits, float *probabilities)"

    def _tasks(self, hop_ms: float) -> dict[str, Any]:
        """What the templates need to know of the answers and events of each task."""
        thresholds, tasks, answers, first, track, longest_gap = [], [], [], 0, 0, 0
        for number, (task, labels) in enumerate(self.model.labels.items()):
            events, calibration = self.model.events_by(task), self.model.calibration(task)
            kind, name, probabilities = self.model.kinds[task], self.tasks[task], self.model.thresholds.get(task)
            tracks = len(labels) if kind == "multilabel" else 1
            gap = math.floor(events.join_ms / hop_ms + 1e-9)
            frames = itertools.count(math.floor(events.min_ms / hop_ms))
            row: list[Any] = [c_string(task), first, len(labels), kind.upper(), track, tracks, gap]
            row += [next(n for n in frames if n * hop_ms >= events.min_ms), c_float(events.floor)]
            none_below = "-HUGE_VALF" if calibration.none_below is None else c_float(calibration.none_below)
            row += [c_float(calibration.temperature), none_below, f"event_thresholds_{name}"]
            row += [f"thresholds_{name}" if probabilities else "NULL", f"{self.name}_{name}_labels"]
            tasks.append(f"    {{{', '.join(map(str, row))}}},")
            thresholds.append(c_array(f"event_thresholds_{name}", events.thresholds))
            if probabilities:
                thresholds.append(c_array(f"thresholds_{name}", probabilities))
            answers.append(
                f"{self._answer(name)}\n{{\n    return answer(&tasks[{number}], logits->{name}, probabilities);\n}}\n"
            )
            first, track, longest_gap = first + len(labels), track + tracks, max(longest_gap, gap)
        return {
            "THRESHOLDS": "".join(thresholds),
            "TASKS": "\n".join(tasks),
            "ANSWERS": "\n".join(answers),
            "TRACKS": track,
            "GAP": longest_gap + 2,
            "EVENT_FRAMES": math.ceil(1000 * LONGEST_EVENT_S / hop_ms),
            "MOST_CLASSES": max(map(len, self.model.labels.values())),
        }


def _log_mel_tables(frontend: LogMel, n_fft: int) -> str:
    turns = 2 * np.pi * np.arange(n_fft // 2) / n_fft
    begin, end, weights = sparse_filters(frontend)
    sizes = {"N_FFT": n_fft, "N_MELS": frontend.n_mels, "WINDOW_LENGTH": len(frontend.window)}
    defines = [f"#define {name} {value}\n" for name, value in (sizes | {"LOG_OFFSET": c_float(LOG_OFFSET)}).items()]
    tables = [
        c_array("hann", frontend.window.double().cpu().numpy()),
        c_array("turn_cos", np.cos(turns)),
        c_array("turn_sin", np.sin(turns)),
        c_array("filter_begin", begin, "int"),
        c_array("filter_end", end, "int"),
        c_array("filters", weights),
    ]
    return "".join([*defines, *tables])


def _test(writer: _Writer, windows: np.ndarray, logits: Sequence[np.ndarray]) -> str:
    samples = np.rint(windows * 32768).clip(-32768, 32767)
    tables, prints, checks = [c_array("sounds", samples.ravel(), "short")], [], []
    for name, expected in zip(writer.tasks.values(), logits, strict=True):
        n = expected.shape[-1]
        tables.append(c_array(f"expected_{name}", expected.ravel()))
        prints += [
            f'    printf("%d ", {writer.name}_{name}_answer(logits, NULL));',
            f"    for (int i = 0; i < {n}; i++)",
            f'        printf("%.9g ", (double)logits->{name}[i]);',
        ]
        difference = f"(double)state->logits.{name}[i] - (double)expected_{name}[k * {n} + i]"
        checks += [f"        for (int i = 0; i < {n}; i++)", f"            worst = fmax(worst, fabs({difference}));"]
    parts = {"TABLES": tables, "PRINT": prints, "CHECK": checks}
    values = writer.values | {"COUNT": len(windows)} | {key: "\n".join(lines) for key, lines in parts.items()}
    return fill_template("test.c", values)
