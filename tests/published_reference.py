"""Run the paper's published TensorFlow code and keep its outputs: tests/data/published.npz and published.json.

    git clone https://github.com/google-research/diffstride && git -C diffstride checkout b3ef50f
    pip install tensorflow-cpu==2.21.0 tf-keras==2.21.0 gin-config==0.5.0
    python tests/published_reference.py diffstride

Not part of the tests: `test_published.py` reads the two files. Inputs follow from seeds (`published_cases.py`), and
only what came out is kept. TensorFlow is no dependency of this project.
"""

import importlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from published_cases import DATA, NETWORK, diffstride_cases, network_input, network_weights, sample, spectral_cases


def main(clone: Path) -> None:
    """Run all cases with the code of a clone of the repository."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"  # the code was written for Keras 2
    sys.path.insert(0, str(clone))
    tf: Any = importlib.import_module("tensorflow")
    pooling: Any = importlib.import_module("diffstride.pooling")
    resnet: Any = importlib.import_module("diffstride.resnet")
    importlib.import_module("gin").bind_parameter("batch_norm.epsilon", 1e-5)  # as in its cifar10.gin
    outputs = diffstride(tf, pooling) | spectral(pooling) | network(tf, pooling, resnet)
    np.savez_compressed(DATA / "published.npz", **outputs)
    facts = counts(tf, pooling, resnet) | recipe(clone)
    (DATA / "published.json").write_text(json.dumps(facts, indent=1) + "\n")


def diffstride(tf: Any, pooling: Any) -> dict[str, np.ndarray]:
    """Output, gradient of the stride and of the map, and the stride left behind."""
    found = {}
    for name, case in diffstride_cases().items():
        layer = pooling.DiffStride(strides=case.stride, smoothness_factor=case.smoothness)
        x, weight = (tf.constant(values) for values in sample(name, case.size))
        with tf.GradientTape() as tape:
            y = layer(x)
            loss = tf.reduce_sum(y * weight[..., : y.shape[2], : y.shape[3]])
        gradient = tape.gradient(loss, layer.strides)
        found |= {f"{name} y": y.numpy(), f"{name} gradient": gradient.numpy(), f"{name} left": layer.strides.numpy()}
    return found


def spectral(pooling: Any) -> dict[str, np.ndarray]:
    """Output of fixed spectral pooling."""
    return {
        f"{name} y": pooling.FixedSpectralPooling(strides=case.stride)(sample(name, case.size)[0]).numpy()
        for name, case in spectral_cases().items()
    }


def network(tf: Any, pooling: Any, resnet: Any) -> dict[str, np.ndarray]:
    """Logits of a narrow ResNet in evaluation, and the gradients of its strides."""
    net = resnet.Resnet(
        filters=[NETWORK["channels"][0], *NETWORK["channels"]],
        strides=NETWORK["published_strides"],
        id_only=[0],
        num_layers=2,
        kernel_size=3,
        num_output_classes=NETWORK["classes"],
        channels_first=False,
        pooling_cls=pooling.DiffStride,
    )
    x = tf.constant(network_input().transpose(0, 2, 3, 1))
    net(x, training=False)
    for variable, values in zip(net.trainable_variables, network_weights(_shapes(net)), strict=True):
        if "strides" not in variable.name:
            variable.assign(values)
    strides = [v for v in net.trainable_variables if "strides" in v.name]
    with tf.GradientTape() as tape:
        y = net(x, training=False)
        loss = tf.reduce_sum(y * y)
    gradients = tape.gradient(loss, strides)
    names = [variable.name for variable in net.trainable_variables]
    return {
        "network y": y.numpy(),
        "network gradients": np.stack([g.numpy() for g in gradients]),
        "network names": np.array(names),
    }


def _shapes(net: Any) -> list[tuple[int, ...]]:
    return [tuple(v.shape) for v in net.trainable_variables]


def counts(tf: Any, pooling: Any, resnet: Any) -> dict[str, Any]:
    """Trainable parameters and pooling layers of the ResNet-18 for CIFAR-10."""
    found = {}
    kinds = {"strided": None, "spectral": pooling.FixedSpectralPooling, "diffstride": pooling.DiffStride}
    for kind, layer in kinds.items():
        net = resnet.resnet18(num_output_classes=10, channels_first=False, pooling_cls=layer)
        net(tf.zeros((1, 32, 32, 3)))
        layers = [m for m in net.submodules if layer is not None and isinstance(m, layer)]
        parameters = sum(int(np.prod(v.shape)) for v in net.trainable_variables)
        found[kind] = {"parameters": parameters, "pooling_layers": len(layers)}
    return {"resnet18": found}


def recipe(clone: Path) -> dict[str, Any]:
    """The settings of the published training and the accuracies of its README."""
    text = (clone / "diffstride/examples/cifar10.gin").read_text()
    keys = ("batch_size", "mixup_alpha", "num_epochs", "momentum", "weight_decay", "boundaries", "values", "strides")
    settings = {}
    for key in keys:
        values = re.findall(rf"\b{key} = (\S.*)$", text, re.MULTILINE)
        settings[key] = json.loads(values[0].replace("_", ""))
    readme = (clone / "README.md").read_text()
    rows = re.findall(r"^\| (Strided|Spectral|DiffStride)[^|]*\|([^|]*)\|([^|]*)\|$", readme, re.MULTILINE)
    scores = [[kind.lower(), *(re.findall(r"\d+\.\d+", cell) for cell in cells)] for kind, *cells in rows]
    return {"training": settings, "accuracies": scores}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
