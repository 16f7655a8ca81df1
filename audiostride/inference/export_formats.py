"""The formats of an exported model, one `Format` each: what it is for, how it is written, run and quantised.

Files are made and read in memory; packages are imported when a format is used.
"""

import io
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from torch.export import ExportedProgram

Runner = Callable[["np.ndarray"], list["np.ndarray"]]
"""Float32 windows in, the logits of each task out."""


class Format(NamedTuple):
    """A kind of file for another runtime.

    Attributes:
        name: of the format, as `export --format` takes it.
        ending: of the file.
        purpose: where it runs.
        write: makes the file of a program, the names of its outputs and the text about it.
        run: opens the content of a file.
        one_window: whether it takes one window at a time instead of any batch and length.
        quantize: rewrites the content of a file in 8 bits, ranges from the calibration windows; or why it cannot.
    """

    name: str
    ending: str
    purpose: str
    write: "Callable[[ExportedProgram, Sequence[str], str], bytes]"
    run: Callable[[bytes], Runner]
    one_window: bool
    quantize: "Callable[[bytes, np.ndarray], bytes] | str"


def run_exported(path: Path, format: str) -> Runner:
    """A function that runs an exported file: float32 windows in, the logits of each task out."""
    return FORMATS[format].run(path.read_bytes())


def _write_torch(program: "ExportedProgram", tasks: "Sequence[str]", about: str) -> bytes:
    import torch

    content = io.BytesIO()  # a full disk would end the whole process
    torch.export.save(program, content, extra_files={"audiostride.json": about})
    return content.getvalue()


def _run_torch(content: bytes) -> Runner:
    import torch

    module = torch.export.load(io.BytesIO(content)).module()
    return lambda x: [y.detach().numpy() for y in module(torch.from_numpy(x))]


def _write_onnx(program: "ExportedProgram", tasks: "Sequence[str]", about: str) -> bytes:
    import torch

    onnx = _package("onnx", "onnx")
    _package("onnxscript", "onnx")
    _package("onnxruntime", "onnx")
    # The input and an output of one name would be one value.
    outputs = [f"{task}_logits" if task == "sound" else task for task in tasks]
    converted = torch.onnx.export(
        program, dynamo=True, opset_version=20, input_names=["sound"], output_names=outputs, verbose=False
    )
    assert converted is not None
    proto = converted.model_proto
    proto.metadata_props.append(onnx.StringStringEntryProto(key="audiostride", value=about))
    return proto.SerializeToString()


def _run_onnx(content: bytes) -> Runner:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"sound": x})


def _quantize_onnx(content: bytes, calibration: "np.ndarray") -> bytes:
    """Convolutions and matrix products in 8 bits."""
    quantization = _package("onnxruntime.quantization", "onnx")
    onnx = _package("onnx", "onnx")

    class Windows(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.windows = iter(calibration)

        def get_next(self) -> "dict[str, np.ndarray] | None":
            window = next(self.windows, None)
            return None if window is None else {"sound": window[None]}

    # The log-mel frontend stays in float32: the power of a quiet band is far below one step in 256.
    whole = onnx.load_from_string(content)
    logs = [i for i, node in enumerate(whole.graph.node) if node.op_type == "Log"]
    frontend = [node.name for node in whole.graph.node[: logs[0] if logs else 0]]
    about = {entry.key: entry.value for entry in whole.metadata_props}
    with TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        quantization.quantize_static(
            whole,
            path,
            Windows(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=frontend,
        )
        proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, about)
    return proto.SerializeToString()


def _write_executorch(program: "ExportedProgram", tasks: "Sequence[str]", about: str) -> bytes:
    exir = _package("executorch.exir", "executorch")
    xnnpack = _package("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
    lowered = exir.to_edge_transform_and_lower(
        program, partitioner=[xnnpack.XnnpackPartitioner()], constant_methods={"audiostride": about}
    )
    return bytes(lowered.to_executorch().buffer)


def _run_executorch(content: bytes) -> Runner:
    import numpy as np
    import torch

    program = _package("executorch.runtime", "executorch").Runtime.get().load_program(content)
    method = program.load_method("forward")

    def run(x: "np.ndarray") -> "list[np.ndarray]":
        logits = [[y.numpy().copy() for y in method.execute([torch.from_numpy(w[None])])] for w in x]
        return [np.concatenate(parts) for parts in zip(*logits, strict=True)]

    run.needs = program, content  # type: ignore[attr-defined] # the method points into them
    return run


def _package(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"this format needs {name.partition('.')[0]}: pip install 'audiostride[{extra}]'") from error


SOURCES = {"c": ".c", "web": ".html"}
"""Endings of what needs no runtime, see `export_source`."""


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        UsageError: if there is none.
    """
    if name not in FORMATS:
        raise UsageError(f"--format {name}: unknown; choose {', '.join([*FORMATS, *SOURCES])}")
    return FORMATS[name]


FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format(
            name="torch",
            ending=".pt2",
            purpose="PyTorch, by `torch.export.load`",
            write=_write_torch,
            run=_run_torch,
            one_window=False,
            quantize="a .pt2 would still compute in float32, on rounded weights",
        ),
        Format(
            name="onnx",
            ending=".onnx",
            purpose="ONNX Runtime and others, opset 20",
            write=_write_onnx,
            run=_run_onnx,
            one_window=False,
            quantize=_quantize_onnx,
        ),
        Format(
            name="executorch",
            ending=".pte",
            purpose="phones and boards, on XNNPACK",
            write=_write_executorch,
            run=_run_executorch,
            one_window=True,
            quantize="8-bit .pte files are not supported",
        ),
    )
}
"""The formats by name, in the order of the documentation."""
