"""A classifier as one C99 file and its header: no allocation, no library but libm, features inside.

The state is one struct of constant size. Samples are pushed as they arrive, and each frame goes through the network row
by row, so that a map never exists whole: of each, the few rows are kept that later operations still need. What computes
a row is in `templates/kernels.c`; here the calls are written, with the sizes and the weights of one model.
"""

import re
from collections.abc import Iterable, Sequence
from importlib.resources import files

import numpy as np

from ..errors import UsageError
from ..mel_scale import LOG_OFFSET
from ..models.classifier import AudioClassifier
from ..models.log_mel import LogMel
from .operations import (
    Add,
    Affine,
    Average,
    Convolution,
    Head,
    Join,
    Matrix,
    Operation,
    Pick,
    Reduce,
    Relu,
    Reshape,
    operations,
)
from .row_schedule import rows_kept, takes_rows

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
        f"{name}_test.c": _test(model, name, windows[:MAX_TEST_WINDOWS], [v[:MAX_TEST_WINDOWS] for v in logits]),
    }


def fill_template(name: str, **values: object) -> str:
    """A file of `templates`, each @KEY@ in it replaced."""
    text = files(__package__).joinpath("templates", name).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda found: str(values[found[1]]), text)


def sparse_filters(frontend: LogMel) -> tuple[list[int], list[int], np.ndarray]:
    """Of each mel filter the first bin and the one behind the last, and the weights of all of them in between."""
    filters = frontend.filters.double().cpu().numpy()
    ends = [(int(np.flatnonzero(row)[0]), int(np.flatnonzero(row)[-1]) + 1) for row in filters]
    weights = np.concatenate([row[begin:end] for row, (begin, end) in zip(filters, ends, strict=True)])
    return [begin for begin, _ in ends], [end for _, end in ends], weights


def fft_length(frontend: LogMel, purpose: str) -> int:
    """The FFT's length, if it is one that the FFT of an exported file has.

    Raises:
        UsageError: if it is no power of two.
    """
    n_fft = 2 * (frontend.filters.shape[1] - 1)
    if n_fft < 4 or n_fft & (n_fft - 1):
        raise UsageError(f"the model's n_fft is {n_fft}; {purpose} needs a power of two, such as 512")
    return n_fft


def _array(name: str, values: Iterable[float], kind: str = "float") -> str:
    """A constant array."""
    texts = [_float(v) if kind == "float" else str(int(v)) for v in values]
    lines = [", ".join(texts[i : i + 12]) for i in range(0, len(texts), 12)]
    return f"static const {kind} {name}[{len(texts)}] = {{\n    " + ",\n    ".join(lines) + "};\n"


def _float(value: float) -> str:
    text = f"{value:.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


def _call(function: str, *arguments: object) -> str:
    return f"{function}({', '.join(map(str, arguments))});"


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


class _Writer:
    """One model on its way to C. The state is `s`; `s->made[i]` counts the rows that there are of map i."""

    def __init__(self, model: AudioClassifier, name: str, steps: Sequence[Operation], int8: bool):
        self.model, self.name, self.steps, self.int8 = model, name, steps, int8
        frontend = model.frontend
        self.tasks = c_identifiers(model.labels)
        self.log_mel = frontend if isinstance(frontend, LogMel) else None
        shape: tuple[int, ...] = (1, model.window_length, 1)
        if self.log_mel:
            self.n_fft = fft_length(self.log_mel, "a C file")
            self.buffer = max(len(self.log_mel.window), self.log_mel.hop_length)
            shape = (1, model.window_length // self.log_mel.hop_length, self.log_mel.n_mels)
        self.shapes = [shape, *(step.shape for step in steps)]
        self.root = [0]  # of a reshaped map the one whose memory it is
        for number, step in enumerate(steps, start=1):
            self.root.append(self.root[step.sources[0]] if isinstance(step, Reshape) else number)
        self.kept = rows_kept(steps, self.shapes, self.root)
        self.constants: list[str] = []
        self.patches = 4
        self.code = [line for i, step in enumerate(steps, start=1) for line in self._step(i, step)]

    # --- The files. ---

    def header(self) -> str:
        """Sizes, state, functions."""
        memory = []
        if self.log_mel:
            memory = [f"float samples[{self.buffer}], re[{self.n_fft // 2 + 1}], im[{self.n_fft // 2 + 1}];"]
        for number, shape in enumerate(self.shapes):
            if len(shape) == 3 and self.root[number] == number:
                memory.append(f"float m{number}[{self.kept[number] * shape[0] * shape[2]}];")
            elif len(shape) == 1 and not isinstance(self.steps[number - 1], Head):
                memory.append(f"float m{number}[{_up(shape[0], 4)}];")
        tasks = [(self.tasks[task], len(labels)) for task, labels in self.model.labels.items()]
        return fill_template(
            "header.h",
            NAME=self.name,
            UPPER=self.name.upper(),
            SAMPLE_RATE=self.model.frontend.sample_rate,
            WINDOW=self.model.window_length,
            LOGITS="\n".join(f"    float {task}[{n}];" for task, n in tasks),
            LABELS="\n".join(f"extern const char *const {self.name}_{task}_labels[{n}];" for task, n in tasks),
            MAPS=len(self.shapes),
            MEMORY="\n".join(f"    {line}" for line in [*memory, f"float patches[{self.patches}];"]),
        )

    def source(self) -> str:
        """Constants, kernels, the operations one after the other, and what is called from outside."""
        used = "\n".join(self.code)
        kernels: list[str] = []
        for part in reversed(fill_template("kernels.c").split("\n\n")):  # a function comes behind those that it calls
            found = re.search(r"^static void (\w+)\(", part, re.MULTILINE)
            if found is None or f"{found[1]}(" in used:
                kernels.insert(0, part)
                used += part
        labels = [
            f"const char *const {self.name}_{self.tasks[task]}_labels[{len(texts)}] = {{\n    "
            + ",\n    ".join(map(c_string, texts))
            + "};\n"
            for task, texts in self.model.labels.items()
        ]
        if self.log_mel:
            features = self._log_mel_tables(self.log_mel) + fill_template("log_mel.c")
            row = self._row(0, "s->made[0]")
            push = fill_template(
                "push_log_mel.c",
                NAME=self.name,
                UPPER=self.name.upper(),
                FRAMES=self.shapes[0][1],
                HOP=self.log_mel.hop_length,
                BUFFER=self.buffer,
                ROW=row,
            )
        else:
            features, row = "", self._row(0, "s->made[0]")
            push = fill_template("push_waveform.c", NAME=self.name, UPPER=self.name.upper(), ROW=row)
        return fill_template(
            "source.c",
            NAME=self.name,
            WEIGHT="int8_t" if self.int8 else "float",
            CONSTANTS="\n".join([*self.constants, *labels]),
            KERNELS="\n\n".join(kernels),
            FEATURES=features,
            STEPS="\n".join(f"    {line}" for line in self.code),
            PUSH=push,
        )

    def _log_mel_tables(self, frontend: LogMel) -> str:
        turns = 2 * np.pi * np.arange(self.n_fft // 2) / self.n_fft
        begin, end, weights = sparse_filters(frontend)
        sizes = {"N_FFT": self.n_fft, "N_MELS": frontend.n_mels, "WINDOW_LENGTH": len(frontend.window)}
        defines = [f"#define {name} {value}\n" for name, value in (sizes | {"LOG_OFFSET": _float(LOG_OFFSET)}).items()]
        tables = [
            _array("hann", frontend.window.double().cpu().numpy()),
            _array("turn_cos", np.cos(turns)),
            _array("turn_sin", np.sin(turns)),
            _array("filter_begin", begin, "int"),
            _array("filter_end", end, "int"),
            _array("filters", weights),
        ]
        return "".join([*defines, *tables])

    # --- The operations: their constants are collected, their code is returned. ---

    def _row(self, number: int, row: str) -> str:
        """Where a row of a map is."""
        number = self.root[number]
        shape, kept = self.shapes[number], self.kept[number]
        return f"s->m{number}" + (f" + ({row}) % {kept} * {shape[0] * shape[2]}" if kept > 1 else "")

    def _constant(self, name: str, values: np.ndarray, kind: str = "float") -> str:
        self.constants.append(_array(name, values.ravel(), kind))
        return name

    def _step(self, number: int, step: Operation) -> list[str]:
        """What makes map or vector `number`, once what it needs is there."""
        if isinstance(step, Reshape):
            return []
        if isinstance(step, Head | Join):
            return self._of_vectors(number, step)
        if takes_rows(step):
            return self._of_all_rows(number, step)
        done, total = f"s->made[{number}]", self.shapes[step.sources[0]][1]
        needed = f"{done} + 1"
        if isinstance(step, Convolution):
            needed = f"least({done} * {step.stride[0]} + {step.weight.shape[2] - step.padding[0]}, {total})"
        elif isinstance(step, Average):
            needed = f"least(({done} + 1) * {step.size[0]}, {total})"
        elif isinstance(step, Pick):
            needed = f"{done} * {step.step[0]} + 1"
        there = " && ".join(f"s->made[{self.root[source]}] >= {needed}" for source in step.sources)
        return [
            f"if ({done} < {self.shapes[number][1]} && {there}) {{",
            *(f"    {line}" for line in self._one_row(number, step, done)),
            f"    {done}++, more = 1;",
            "}",
        ]

    def _one_row(self, number: int, step: Operation, done: str) -> list[str]:
        first, out, relu = step.sources[0], self._row(number, done), int(getattr(step, "relu", False))
        channels, total, width = self.shapes[first]
        if isinstance(step, Convolution):
            return self._convolution(number, step, out, done)
        if isinstance(step, Affine):
            scale, shift = self._constant(f"c{number}", step.scale), self._constant(f"b{number}", step.shift)
            return [_call("affine", out, self._row(first, done), scale, shift, channels, width, relu)]
        if isinstance(step, Add):
            rows = [self._row(source, done) for source in step.sources]
            return [_call("add", out, *rows, channels * width, relu)]
        if isinstance(step, Relu):
            return [_call("add", out, self._row(first, done), "NULL", channels * width, 1)]
        if isinstance(step, Matrix):
            groups, m, n = step.matrix.shape
            matrix = self._constant(f"w{number}", step.matrix)
            return [_call("mel_matrix", out, self._row(first, done), matrix, groups, channels, m, n, relu)]
        if isinstance(step, Average):
            root, begin = self.root[first], f"{done} * {step.size[0]}"
            frames = f"least({step.size[0]}, {total} - {begin})"
            rows = [f"s->m{root}", str(self.kept[root])]
            return [_call("average", out, *rows, begin, frames, channels, width, step.size[1])]
        assert isinstance(step, Pick)
        return [_call("pick", out, self._row(first, f"{done} * {step.step[0]}"), channels, width, step.step[1])]

    def _convolution(self, number: int, step: Convolution, out: str, done: str) -> list[str]:
        first = step.sources[0]
        (channels, total, width), root, columns = self.shapes[first], self.root[first], self.shapes[number][2]
        outputs, inputs, *kernel = step.weight.shape
        begin = f"{done} * {step.stride[0]} - {step.padding[0]}"
        rows = [f"s->m{root}", self.kept[root], begin, total, channels, width]
        along_mel = [*kernel, step.stride[1], step.padding[1], columns]
        if inputs == 1 and step.groups == outputs:
            layer = self._layer(number, step.weight.reshape(outputs, -1), step.bias)
            return [_call("depthwise", out, *rows, *layer, *along_mel, int(step.relu))]
        if step.groups > 1:
            raise UsageError(
                f"a convolution of {step.groups} groups over {channels} channels is not in the list of a C file; use "
                "one group, or as many as channels"
            )
        pitch = 1 if columns == 1 else _up(columns, 4)
        size = inputs * kernel[0] * kernel[1]
        depth = _up(size, 4) if columns == 1 else size
        self.patches = max(self.patches, depth * pitch)
        layer = self._layer(number, step.weight.reshape(outputs, -1), step.bias, depth)
        lines = [_call("gather", "s->patches", *rows, *along_mel, pitch)]
        if columns > 1:
            sizes = [outputs, depth, columns, pitch]
            return [*lines, _call("multiply", out, "s->patches", *layer, *sizes, int(step.relu))]
        if depth > size:
            lines.append(_call("memset", f"s->patches + {size}", 0, f"{depth - size} * sizeof(float)"))
        return [*lines, _call("multiply_column", out, "s->patches", *layer, outputs, depth, int(step.relu))]

    def _of_all_rows(self, number: int, step: Operation) -> list[str]:
        """A `Reduce`, where `made` counts the rows it took; or a product along time, where it counts down."""
        first, done = step.sources[0], f"s->made[{number}]"
        (channels, total, width), there = self.shapes[first], f"s->made[{self.root[first]}]"
        out = f"s->m{number}"
        if isinstance(step, Reduce):
            is_max = int(step.kind == "max")
            row = self._row(first, done)
            mean = [
                f"    for (int c = 0; {done} == {total} && c < {channels}; c++)",
                f"        {out}[c] /= {total * width};",
            ]
            return [
                f"if ({done} < {there}) {{",
                "    " + _call("reduce", out, row, channels, width, is_max, f"{done} == 0"),
                f"    {done}++, more = 1;",
                *([] if is_max else mean),
                "}",
            ]
        assert isinstance(step, Matrix)
        groups, m, n = step.matrix.shape
        matrix, size = self._constant(f"w{number}", step.matrix), m * channels * width
        row = self._row(first, f"-{done}")
        return [
            f"if ({done} <= 0 && -{done} < {there}) {{",
            f"    if ({done} == 0)",
            f"        memset({out}, 0, sizeof {out});",
            "    " + _call("time_matrix", out, row, matrix, groups, channels, width, m, n, f"-{done}"),
            f"    if (--{done} == -{n}) {{",
            *([f"        add({out}, {out}, NULL, {size}, 1);"] if step.relu else []),
            f"        {done} = {m};",
            "    }",
            "    more = 1;",
            "}",
        ]

    def _of_vectors(self, number: int, step: Head | Join) -> list[str]:
        """What comes behind the last row."""
        done, lines, at = f"s->made[{number}]", [], 0
        there = " && ".join(f"s->made[{source}] == {self._whole(source)}" for source in step.sources)
        if isinstance(step, Join):
            for source in step.sources:
                n = self.shapes[source][0]
                lines.append(_call("memcpy", f"s->m{number} + {at}", f"s->m{source}", f"{n} * sizeof(float)"))
                at += n
        else:
            (source,) = step.sources
            depth, logits = _up(step.weight.shape[1], 4), f"s->logits.{self.tasks[step.task]}"
            layer = self._layer(number, step.weight, step.bias, depth)
            lines = [_call("multiply_column", logits, f"s->m{source}", *layer, len(step.bias), depth, 0)]
        return [f"if (!{done} && {there}) {{", *(f"    {line}" for line in lines), f"    {done} = more = 1;", "}"]

    def _whole(self, vector: int) -> int:
        """What `made` of a vector is when it is complete."""
        before = self.steps[vector - 1]
        return self.shapes[before.sources[0]][1] if isinstance(before, Reduce) else 1

    def _layer(self, number: int, weight: np.ndarray, bias: np.ndarray, depth: int | None = None) -> list[str]:
        """Names of the constants of a layer: weights, a scale for each output, bias.

        With a depth, weights ``(outputs, size)`` are packed to ``(outputs / 8, depth, 8)``, zeros where nothing is.
        """
        scale = np.ones(len(weight))
        if self.int8:
            scale = np.maximum(np.abs(weight).max(1), 1e-30) / 127
            weight = np.rint(weight / scale[:, None])
        if depth is not None:
            padded = np.zeros((_up(len(weight), 8), depth))
            padded[: len(weight), : weight.shape[1]] = weight
            weight = padded.reshape(-1, 8, depth).transpose(0, 2, 1)
        kind = "int8_t" if self.int8 else "float"
        named = [self._constant(f"w{number}", weight, kind), self._constant(f"c{number}", scale)]
        return [*named, self._constant(f"b{number}", bias)]


def _test(model: AudioClassifier, name: str, windows: np.ndarray, logits: Sequence[np.ndarray]) -> str:
    samples = np.rint(windows * 32768).clip(-32768, 32767)
    tables, prints, checks = [_array("sounds", samples.ravel(), "short")], [], []
    for (task, name_), expected in zip(c_identifiers(model.labels).items(), logits, strict=True):
        n = len(model.labels[task])
        tables.append(_array(f"expected_{name_}", expected.ravel()))
        prints += [f"    for (int i = 0; i < {n}; i++)", f'        printf("%.9g ", (double)state.logits.{name_}[i]);']
        difference = f"(double)state.logits.{name_}[i] - (double)expected_{name_}[k * {n} + i]"
        checks += [f"        for (int i = 0; i < {n}; i++)", f"            worst = fmax(worst, fabs({difference}));"]
    return fill_template(
        "test.c",
        NAME=name,
        UPPER=name.upper(),
        COUNT=len(windows),
        TABLES="\n".join(tables),
        PRINT="\n".join(prints),
        CHECK="\n".join(checks),
    )
