"""The formats of an exported model, torch.export, ONNX and ExecuTorch: writing, quantising and running them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..errors import UsageError

Format = Literal["torch", "onnx", "executorch"]

ENDINGS: dict[Format, str] = {"torch": ".pt2", "onnx": ".onnx", "executorch": ".pte"}


def run_exported(path: Path, format: Format) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A function that runs an exported file: float32 windows in, the logits of each task out."""
    if format == "torch":
        module = torch.export.load(path).module()
        return lambda x: [y.detach().numpy() for y in module(torch.from_numpy(x))]
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, _session_options(onnxruntime), providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {"sound": x})
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")
    return lambda x: [
        np.concatenate(parts)
        for parts in zip(*([y.numpy() for y in method.execute([torch.from_numpy(w[None])])] for w in x), strict=True)
    ]


def _session_options(onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return options


def _write_torch(program: torch.export.ExportedProgram, path: Path, tasks: Sequence[str], about: str) -> None:
    torch.export.save(program, path, extra_files={"audiostride.json": about})


def _write_onnx(program: torch.export.ExportedProgram, path: Path, tasks: Sequence[str], about: str) -> None:
    onnx = _package("onnx", "onnx")
    _package("onnxscript", "onnx")
    _package("onnxruntime", "onnx")
    converted = torch.onnx.export(
        program, dynamo=True, opset_version=20, input_names=["sound"], output_names=list(tasks), verbose=False
    )
    assert converted is not None
    proto = converted.model_proto
    proto.metadata_props.append(onnx.StringStringEntryProto(key="audiostride", value=about))
    onnx.save(proto, path)


def _write_executorch(program: torch.export.ExportedProgram, path: Path, tasks: Sequence[str], about: str) -> None:
    exir = _package("executorch.exir", "executorch")
    xnnpack = _package("executorch.backends.xnnpack.partition.xnnpack_partitioner", "executorch")
    lowered = exir.to_edge_transform_and_lower(
        program, partitioner=[xnnpack.XnnpackPartitioner()], constant_methods={"audiostride": about}
    )
    path.write_bytes(lowered.to_executorch().buffer)


WRITERS: dict[Format, Callable[[torch.export.ExportedProgram, Path, Sequence[str], str], None]] = {
    "torch": _write_torch,
    "onnx": _write_onnx,
    "executorch": _write_executorch,
}


def quantize_onnx(path: Path, calibration: np.ndarray) -> None:
    """Rewrite an ONNX file with 8-bit convolutions and matrix products, ranges from the calibration windows."""
    quantization = _package("onnxruntime.quantization", "onnx")
    onnx = _package("onnx", "onnx")
    about = [(entry.key, entry.value) for entry in onnx.load(path).metadata_props]

    class Windows(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.windows = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            window = next(self.windows, None)
            return None if window is None else {"sound": window[None]}

    # The log-mel frontend stays in float32: the power of a quiet band is far below one step in 256.
    nodes = onnx.load(path).graph.node
    logs = [i for i, node in enumerate(nodes) if node.op_type == "Log"]
    frontend = [node.name for node in nodes[: logs[0] if logs else 0]]
    float_path = path.with_name(path.stem + ".float32.onnx")
    os.replace(path, float_path)
    try:
        quantization.quantize_static(
            float_path,
            path,
            Windows(),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=frontend,
        )
    finally:
        float_path.unlink()
    proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, dict(about))
    onnx.save(proto, path)


def _package(name: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"this format needs {name.partition('.')[0]}: pip install 'audiostride[{extra}]'") from error
