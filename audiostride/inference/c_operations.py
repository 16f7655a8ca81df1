"""The operations of a model as C: constants, and what computes the next row of each map.

Each frame goes through the network row by row, so that a map never exists whole: of each, the few rows are kept that
later operations still need. What computes a row is in `templates/kernels.c`; here the calls are written, with the sizes
and the weights of one model. The state is `s`; `s->made[i]` counts the rows that there are of map i, `s->rows[i]` those
that there will be.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..errors import UsageError
from .operations import Add, Affine, Average, Convolution, Head, Join, Matrix, Operation, Pick, Reduce, Relu, Reshape
from .row_schedule import map_roots, rows_kept, takes_rows


def c_array(name: str, values: Iterable[float], kind: str = "float") -> str:
    """A constant array.

    Example:
        >>> c_array("turns", [0, 0.5])
        'static const float turns[2] = {\\n    0.0f, 0.5f};\\n'
    """
    texts = [c_float(v) if kind == "float" else str(int(v)) for v in values]
    lines = [", ".join(texts[i : i + 12]) for i in range(0, len(texts), 12)]
    return f"static const {kind} {name}[{len(texts)}] = {{\n    " + ",\n    ".join(lines) + "};\n"


def c_float(value: float) -> str:
    """A number with as many digits as float32 has."""
    text = f"{value:.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


def _call(function: str, *arguments: object) -> str:
    return f"{function}({', '.join(map(str, arguments))});"


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


class RowCode:
    """The C code of a list of operations.

    Args:
        steps: from `operations.operations`.
        shape: of the input, ``(channel, time, mel)``.
        tasks: C identifier of each task.
        int8: weights of convolutions and heads in 8 bits, with a scale for each output channel.
        frames: whether the list ends in a mean over time and heads that are also computed for each frame.
        endless: see `row_schedule.rows_kept`.

    Attributes:
        shapes: of the input and of what each operation makes.
        constants: their C source.
        lines: of a function that computes the next row of each map, if what it needs is there.
        memory: declarations of the maps.
    """

    def __init__(
        self,
        steps: Sequence[Operation],
        shape: tuple[int, int, int],
        tasks: Mapping[str, str],
        int8: bool,
        frames: bool,
        endless: range,
    ):
        self.steps, self.tasks, self.int8, self.frames = steps, tasks, int8, frames
        self.shapes: list[tuple[int, ...]] = [shape, *(step.shape for step in steps)]
        self.root, self.kept = map_roots(steps), rows_kept(steps, shape, endless)
        self.constants: list[str] = []
        self.patches = 4
        self.lines = [line for i, step in enumerate(steps, start=1) for line in self._step(i, step)]

    @property
    def memory(self) -> list[str]:
        found = []
        for number, shape in enumerate(self.shapes):
            if len(shape) == 3 and self.root[number] == number:
                found.append(f"float m{number}[{self.kept[number] * shape[0] * shape[2]}];")
            elif len(shape) == 1 and not isinstance(self.steps[number - 1], Head):
                found.append(f"float m{number}[{_up(shape[0], 4)}];")
        return [*found, f"float patches[{self.patches}];"]

    def rows_lines(self) -> list[str]:
        """How many rows there will be of each map, from those of the input."""
        lines = []
        for number, step in enumerate(self.steps, start=1):
            rows = f"s->rows[{step.sources[0]}]"
            if isinstance(step, Convolution):
                more = 2 * step.padding[0] - step.weight.shape[2]
                rows = f"({rows} + {more}) / {step.stride[0]} + 1"
            elif isinstance(step, Average | Pick):
                by = (step.size if isinstance(step, Average) else step.step)[0]
                rows = f"({rows} + {by - 1}) / {by}"
            lines.append(f"s->rows[{number}] = {rows if len(step.shape) == 3 else 1};")
        return lines

    def row(self, number: int, row: str) -> str:
        """Where a row of a map is."""
        number = self.root[number]
        shape, kept = self.shapes[number], self.kept[number]
        return f"s->m{number}" + (f" + ({row}) % {kept} * {shape[0] * shape[2]}" if kept > 1 else "")

    def _constant(self, name: str, values: np.ndarray, kind: str = "float") -> str:
        self.constants.append(c_array(name, values.ravel(), kind))
        return name

    def _step(self, number: int, step: Operation) -> list[str]:
        """What makes map or vector `number`, once what it needs is there."""
        if isinstance(step, Reshape):
            return []
        if isinstance(step, Head) and self.frames:
            return []  # in the lines of the mean before it
        if isinstance(step, Head | Join):
            return self._of_vectors(number, step)
        if takes_rows(step):
            return self._of_all_rows(number, step)
        done, total = f"s->made[{number}]", f"s->rows[{step.sources[0]}]"
        needed = f"{done} + 1"
        if isinstance(step, Convolution):
            needed = f"least({done} * {step.stride[0]} + {step.weight.shape[2] - step.padding[0]}, {total})"
        elif isinstance(step, Average):
            needed = f"least(({done} + 1) * {step.size[0]}, {total})"
        elif isinstance(step, Pick):
            needed = f"{done} * {step.step[0]} + 1"
        there = " && ".join(f"s->made[{self.root[source]}] >= {needed}" for source in step.sources)
        return [
            f"if ({done} < s->rows[{number}] && {there}) {{",
            *(f"    {line}" for line in self._one_row(number, step, done)),
            f"    {done}++, more = 1;",
            "}",
        ]

    def _one_row(self, number: int, step: Operation, done: str) -> list[str]:
        first, out, relu = step.sources[0], self.row(number, done), int(getattr(step, "relu", False))
        channels, _, width = self.shapes[first]
        if isinstance(step, Convolution):
            return self._convolution(number, step, out, done)
        if isinstance(step, Affine):
            scale, shift = self._constant(f"c{number}", step.scale), self._constant(f"b{number}", step.shift)
            return [_call("affine", out, self.row(first, done), scale, shift, channels, width, relu)]
        if isinstance(step, Add):
            rows = [self.row(source, done) for source in step.sources]
            return [_call("add", out, *rows, channels * width, relu)]
        if isinstance(step, Relu):
            return [_call("add", out, self.row(first, done), "NULL", channels * width, 1)]
        if isinstance(step, Matrix):
            groups, m, n = step.matrix.shape
            matrix = self._constant(f"w{number}", step.matrix)
            return [_call("mel_matrix", out, self.row(first, done), matrix, groups, channels, m, n, relu)]
        if isinstance(step, Average):
            root, begin = self.root[first], f"{done} * {step.size[0]}"
            frames = f"least({step.size[0]}, s->rows[{first}] - {begin})"
            rows = [f"s->m{root}", str(self.kept[root])]
            return [_call("average", out, *rows, begin, frames, channels, width, step.size[1])]
        assert isinstance(step, Pick)
        return [_call("pick", out, self.row(first, f"{done} * {step.step[0]}"), channels, width, step.step[1])]

    def _convolution(self, number: int, step: Convolution, out: str, done: str) -> list[str]:
        first = step.sources[0]
        (channels, _, width), root, columns = self.shapes[first], self.root[first], self.shapes[number][2]
        outputs, inputs, *kernel = step.weight.shape
        begin = f"{done} * {step.stride[0]} - {step.padding[0]}"
        rows = [f"s->m{root}", self.kept[root], begin, f"s->rows[{first}]", channels, width]
        along_mel = [*kernel, step.stride[1], step.padding[1], columns]
        if inputs == 1 and step.groups == outputs:
            layer = self._layer(number, step.weight.reshape(outputs, -1), step.bias)
            return [_call("depthwise", out, *rows, *layer, *along_mel, int(step.relu))]
        if step.groups > 1:
            raise UsageError(
                f"a convolution of {step.groups} groups over {channels} channels is not in the list of a C file; use "
                "one group, or as many as channels"
            )
        pitch = 1 if columns == 1 else _up(columns, 8)
        size = inputs * kernel[0] * kernel[1]
        depth = _up(size, 2) if columns == 1 else size
        self.patches = max(self.patches, depth * pitch)
        weight = step.weight.reshape(outputs, -1)
        layer = self._layer(number, weight, step.bias, (16, depth) if columns == 1 else (4, depth))
        patches, lines = "s->patches", [_call("gather", "s->patches", *rows, *along_mel, pitch)]
        if kernel == [1, 1] and step.stride[1] == 1 and max(step.padding) == 0 and (pitch, depth) == (columns, size):
            patches, lines = self.row(first, f"{done} * {step.stride[0]}"), []
        if columns > 1:
            sizes = [outputs, depth, columns, pitch]
            return [*lines, _call("multiply", out, patches, *layer, *sizes, int(step.relu))]
        if depth > size:
            lines.append(_call("memset", f"s->patches + {size}", 0, f"{depth - size} * sizeof(float)"))
        return [*lines, _call("multiply_column", out, patches, *layer, outputs, depth, int(step.relu))]

    def _of_all_rows(self, number: int, step: Operation) -> list[str]:
        """A `Reduce`, where `made` counts the rows it took; or a product along time, where it counts down."""
        first, done = step.sources[0], f"s->made[{number}]"
        (channels, _, width), there = self.shapes[first], f"s->made[{self.root[first]}]"
        out = f"s->m{number}"
        if isinstance(step, Reduce):
            mean, row = step.kind == "mean", self.row(first, done)
            heads = self._heads() if self.frames else []
            recording = "s->recording" if heads else "0"
            whole = [
                f"for (int c = 0; c < {channels}; c++)",
                f"    {out}[c] /= (float)({width} * ({recording} ? 1 : {done}));",
                *heads,
                *(["if (s->recording)", "    one_frame(s->recording, &s->logits);"] if heads else []),
            ]
            return [
                f"if ({done} < {there}) {{",
                "    " + _call("reduce", out, row, channels, width, int(not mean), f"{recording} || {done} == 0"),
                f"    {done}++, more = 1;",
                *([f"    if ({recording} || {done} == s->rows[{first}]) {{"] if mean else []),
                *(f"        {line}" for line in whole if mean),
                *(["    }"] if mean else []),
                "}",
            ]
        assert isinstance(step, Matrix)
        groups, m, n = step.matrix.shape
        matrix, size = self._constant(f"w{number}", step.matrix), m * channels * width
        row = self.row(first, f"-{done}")
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
            lines = [self._head(number, step)]
        return [f"if (!{done} && {there}) {{", *(f"    {line}" for line in lines), f"    {done} = more = 1;", "}"]

    def _heads(self) -> list[str]:
        return [self._head(i, step) for i, step in enumerate(self.steps, start=1) if isinstance(step, Head)]

    def _head(self, number: int, step: Head) -> str:
        (source,), depth = step.sources, _up(step.weight.shape[1], 2)
        layer = self._layer(number, step.weight, step.bias, (16, depth))
        logits = f"s->logits.{self.tasks[step.task]}"
        return _call("multiply_column", logits, f"s->m{source}", *layer, len(step.bias), depth, 0)

    def _whole(self, vector: int) -> str:
        """What `made` of a vector is when it is complete."""
        before = self.steps[vector - 1]
        return f"s->rows[{before.sources[0]}]" if isinstance(before, Reduce) else "1"

    def _layer(
        self, number: int, weight: np.ndarray, bias: np.ndarray, blocks: tuple[int, int] | None = None
    ) -> list[str]:
        """Names of the constants of a layer: weights, a scale for each output, bias.

        With the size of blocks (b, depth), weights ``(outputs, n)`` are packed to ``(outputs / b, depth, b)``, zeros
        where nothing is.
        """
        scale = np.ones(len(weight))
        if self.int8:
            scale = np.maximum(np.abs(weight).max(1), 1e-30) / 127
            weight = np.rint(weight / scale[:, None])
        if blocks is not None:
            size, depth = blocks
            padded = np.zeros((_up(len(weight), size), depth))
            padded[: len(weight), : weight.shape[1]] = weight
            weight = padded.reshape(-1, size, depth).transpose(0, 2, 1)
        kind = "int8_t" if self.int8 else "float"
        named = [self._constant(f"w{number}", weight, kind), self._constant(f"c{number}", scale)]
        return [*named, self._constant(f"b{number}", bias)]
