"""The model card of a classifier: the README under which it is published."""

import json

from ..errors import printable
from .cost import cost_per_second
from .cutoffs import model_cutoffs, why_no_cutoffs
from .network import AudioNetwork


def model_card(
    model: AudioNetwork, data: str | None = None, license: str | None = None, model_id: str | None = None
) -> str:
    """The README of a published model: its classes, its data, how well, at what cost, how to use it.

    Args:
        model: the classifier; its `results` are the scores of the card.
        data: what it was trained on, in words.
        license: identifier of the weights' licence, such as "cc-by-4.0".
        model_id: "user/name", for the example.

    Returns:
        Markdown with the hub's metadata in front.

    Example:
        >>> from audiostride import AudioCNN, LogMel
        >>> model = AudioNetwork(LogMel(), AudioCNN("strided"), {"word": ["no", "yes"]})
        >>> card = model_card(model, data="two spoken words", license="cc-by-4.0")
        >>> card.splitlines()[1], "two spoken words" in card
        ('library_name: audiostride', True)
    """
    cost = cost_per_second(model)
    of_images = model.frontend.takes_images
    kind = "image" if of_images else "audio"
    tests = {task: score for task, score in (model.results or {}).get("tasks", {}).items() if task in model.labels}
    lines = [
        "---",
        "library_name: audiostride",
        f"pipeline_tag: {kind}-classification",
        f"tags: [{kind}-classification, diffstride]",
        *([f"license: {license}"] if license else []),
        "---",
        "",
        f"# {(model_id or kind + ' classifier').rpartition('/')[2]}",
        "",
        f"An {kind} classifier for {_plural(len(model.labels), 'task')}, made with audiostride: "
        f"{_parts(model)}, a linear head per task.",
        "",
        "| task | classes |",
        "|---|---|",
        *(
            f"| {_cell(task)} | {', '.join(_cell(label) for label in labels)} |"
            for task, labels in model.labels.items()
        ),
        "",
        *_resolution(model),
        "## Data and scores",
        "",
        f"Trained on: {data or 'not stated by the publisher'}.",
        "",
    ]
    if tests:
        lines += ["| task | split | accuracy | clips |", "|---|---|---|---|"]
        for task, score in tests.items():
            lines.append(
                f"| {_cell(task)} | {_cell(score['split'])} | {100 * score['accuracy']:.1f} % | {score['n']} |"
            )
        lines += ["", f"Seed {model.results.get('seed')}." if model.results else ""]
    else:
        lines += ["No test scores came with it."]
    lines += [
        "",
        "## Cost",
        "",
        f"{cost.macs / 1e6:.1f} million multiply-accumulates per {'image' if of_images else 'second of audio'}, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters.",
        "",
        *([] if why_no_cutoffs(model) else _cutoffs(model)),
        "## How to use it",
        "",
        *_own_classes(model),
        "```python",
        *(["import torch"] if of_images else []),
        "import audiostride as au",
        *(["import huggingface_hub"] if _own_classes(model) else []),
        "",
        f"model = {_loading(model, json.dumps(model_id or 'USER/NAME'))}",
        *_using(model),
        "```",
        "",
        "## Licence",
        "",
        f"The weights: {license}." if license else "Not stated by the publisher.",
        "",
    ]
    return "\n".join(lines)


def _parts(model: AudioNetwork) -> str:
    trunk, frontend = model.trunk, model.frontend
    if trunk.source:
        return f"{trunk.title} on {frontend.title}"
    return f"{trunk.title} on {frontend.title} with {trunk.settings['downsampling']} downsampling"


def _resolution(model: AudioNetwork) -> list[str]:
    tile = model.frontend.tile(model.window_length)
    if tile is None:
        return []
    return [
        f"It learned the resolution of its spectrogram: a window of {tile['window_ms']:.1f} ms, "
        f"{tile['frames_per_s']:.0f} frames a second, {tile['bands']} mel bands.",
        "",
    ]


def _cutoffs(model: AudioNetwork) -> list[str]:
    lines = [
        "## Cut-offs",
        "",
        "The fastest modulation that each layer passes on, given all layers before it (f/2S).",
        "",
        "| layer | axis | stride | cut-off |",
        "|---|---|---|---|",
    ]
    for row in model_cutoffs(model):
        cutoff = row.cumulative.continuous
        in_units = f"{cutoff:.1f} Hz" if row.axis == "time" else f"{cutoff:.3f} cycles per mel band"
        lines.append(f"| {row.layer} | {row.axis} | {row.stride:.2f} | {in_units} |")
    return [*lines, ""]


def _using(model: AudioNetwork) -> list[str]:
    """Lines of Python that put a question to the model."""
    frontend = model.frontend
    if frontend.takes_images:
        shape = f"({frontend.resolution}, {frontend.resolution}, 3)"
        return [
            f"image = torch.zeros{shape}.byte()  # yours, values from 0 to 255",
            "print(model(image[None]))  # logits",
        ]
    rate, channel = frontend.sample_rate, "" if model.channel == "mix" else f", channel={model.channel!r}"
    return [f"waveform = au.read_audio('sound.wav', {rate}{channel})", f"print(model.predict(waveform, {rate}))"]


def _own_classes(model: AudioNetwork) -> list[str]:
    """That the model needs classes which are not part of it, where it does."""
    names = [f"`{part.source}`" for part in (model.trunk, model.frontend) if part.source]
    if not names:
        return []
    return [f"Loading it imports and calls {' and '.join(names)}, which must be importable.", ""]


def _loading(model: AudioNetwork, model_id: str) -> str:
    if _own_classes(model):
        return f"au.load(huggingface_hub.snapshot_download({model_id}))"
    return f"au.AudioClassifier.from_pretrained({model_id})"


def _plural(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _cell(text: str) -> str:
    return printable(text.replace("\n", " ")).replace("|", "\\|")
