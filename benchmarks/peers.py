"""Networks of other people beside this package's: trained in one loop on one split, timed in turn, in one figure.

    python benchmarks/peers.py train DATA_FOLDER [--column label] [--group speaker] [--models a,b] [--seeds 0,1,2]
                                     [--epochs 12] [--out peers] [--set KEY=VALUE ...]
    python benchmarks/peers.py time [--out peers] [--models a,b] [--repeats 30]
    python benchmarks/peers.py figure [--out peers] [--plot peers.png]

`train` trains every network by the recipe `folder` (same loop, augmentation, split and number of epochs; `--set`
overrides any key for all of them) and adds a row to `peers.csv`; a model and seed that have a row are left out, so the
same command goes on. Those of `trunk_variants.py` are trained, timed and drawn only if `--models` names them. The
floor, `svm`, is a support vector machine on log-mel: mean and sd over time, or the whole spectrogram of the centre of
the clip, whichever scores better on the validation clips. `time` writes `peers_latency.csv`: one second, batch 1, one
thread, the trunk alone without frontend and head, all networks in turn, learned strides frozen where they start. MACs
of all networks are counted by `models/cost.py`. The committed figures are those of `--out benchmarks`.
"""

import argparse
import csv
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from audiostride import AudioResNet
from audiostride.analysis.plot_style import FAINT, PALETTE, new_figure, save, shared_legend, styled
from audiostride.data.batches import LabelledClips
from audiostride.layers.strides import freeze_strides
from audiostride.models.log_mel import LogMel
from audiostride.training.build import make_network, read_data
from audiostride.training.recipe import Recipe, load_recipe
from audiostride.training.report import Report
from audiostride.training.run import run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {
    "": "downsampling: strided",
    " diffstride": "downsampling: diffstride",
    " aliasing": "downsampling: diffstride, aliasing: 0.1",
}
RESNETS = {
    f"{size.removeprefix('audio_resnet_')}{kind}": f"{{name: audio_resnet, {downsampling}, {json.dumps(widths)[1:-1]}}}"
    for size, widths in AudioResNet.sizes.items()
    for kind, downsampling in KINDS.items()
}
NARROW = "channels: [16, 32, 64, 64, 128, 128], smoothness: 1"
OURS = RESNETS | {
    "strided": f"{{name: audio_cnn, downsampling: strided, {NARROW}}}",
    "spectral": f"{{name: audio_cnn, downsampling: spectral, {NARROW}}}",
    "diffstride": f"{{name: audio_cnn, downsampling: diffstride, {NARROW}}}",
}
PEERS = {
    "matchboxnet_3x1x64": "{name: custom, trunk: 'peer_models:MatchboxNet'}",
    "bc_resnet_1": "{name: custom, trunk: 'peer_models:BCResNet', settings: {width: 1}}",
    "bc_resnet_3": "{name: custom, trunk: 'peer_models:BCResNet', settings: {width: 3}}",
    "tc_resnet_8": "{name: custom, trunk: 'peer_models:TCResNet'}",
    "resnet18_strided": "{name: resnet, downsampling: strided}",
    "mobilenetv3_small_100": "{name: custom, trunk: 'peer_models:TimmTrunk', settings: {name: mobilenetv3_small_100}}",
    "efficientnet_b0": "{name: custom, trunk: 'peer_models:TimmTrunk', settings: {name: efficientnet_b0}}",
}
VARIANTS = {
    "nano se": "{name: custom, trunk: 'trunk_variants:SqueezeExciteNet', settings: {downsampling: strided}}",
    "nano ssn": "{name: custom, trunk: 'trunk_variants:SubSpectralNet', settings: {downsampling: strided}}",
}
FEWER_BANDS = {"bc_resnet_1": 40, "bc_resnet_3": 40, "tc_resnet_8": 40}
"""Mel bands of networks that were published on another number than 64."""

FLOOR = "svm"
MARKERS = "osD^vPX*<>hd"
COLUMNS = ("task", "model", "seed", "accuracy", "clips", "parameters", "mmac_per_s")
PANELS = {
    "mmac_per_s": "million MACs per second of audio",
    "ms": "ms for one second, one thread",
    "parameters": "parameters",
}


def recipe_of(model: str, seed: int, settings: Sequence[str]) -> Recipe:
    """The recipe of one network: `folder` but for its model and, for some, fewer mel bands."""
    bands = [f"frontend.n_mels={FEWER_BANDS[model]}"] if model in FEWER_BANDS else []
    trunk = (OURS | PEERS | VARIANTS).get(model, OURS["strided"])
    return load_recipe("folder", [f"model={trunk}", *bands, f"seed={seed}", *settings])


def train(args: argparse.Namespace) -> None:
    """Train every model and seed that has no row yet."""
    settings = [f"tasks.label.data.path={args.data}", f"tasks.label.column={args.column}"]
    settings += [f"tasks.label.data.group={args.group}"] if args.group else []
    settings += [f"train.epochs={args.epochs}", *args.settings]
    task, table = f"{args.data.resolve().name} {args.column}", args.out / "peers.csv"
    args.out.mkdir(parents=True, exist_ok=True)
    done = {(row["task"], row["model"], row["seed"]) for row in read(table)}
    for seed in args.seeds:
        for model in args.models:
            if (task, model, str(seed)) in done:
                continue
            recipe = recipe_of(model, seed, settings)
            found = floor(recipe) if model == FLOOR else trained(recipe, args.out / f"{task} {model} seed-{seed}")
            row = {"task": task, "model": model, "seed": seed} | found
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            with table.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)


def trained(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Train one network, or go on with what a stopped training left."""
    results = run(recipe, out, Report(notify=print), resume=out.is_dir())
    score = results["tasks"]["label"]
    return {
        "accuracy": score["accuracy"],
        "clips": score["n"],
        "parameters": results["parameters"],
        "mmac_per_s": results["macs_per_second"] / 1e6,
    }


def floor(recipe: Recipe) -> dict[str, Any]:
    """A support vector machine on log-mel features; the kind of features is chosen on the validation clips."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    (data,), _, _ = read_data(recipe)
    labels = data.labels["label"]
    log_mels = centres(data, recipe.frontend.resolution)
    kinds = {
        "statistics": np.concatenate([log_mels.mean(1), log_mels.std(1)], axis=1),
        "spectrogram": log_mels.reshape(len(log_mels), -1),
    }
    rows = {split: data.indexes(split) for split in ("train", "validation", "test")}
    fitted = {}
    for kind, features in kinds.items():
        machine = make_pipeline(StandardScaler(), SVC(C=10.0)).fit(features[rows["train"]], labels[rows["train"]])
        fitted[kind] = (machine.score(features[rows["validation"]], labels[rows["validation"]]), machine)
    kind = max(fitted, key=lambda name: fitted[name][0])
    machine = fitted[kind][1]
    numbers = machine[-1].support_vectors_.size  # each is multiplied once for a clip of one second
    accuracy = machine.score(kinds[kind][rows["test"]], labels[rows["test"]])
    return {"accuracy": accuracy, "clips": len(rows["test"]), "parameters": numbers, "mmac_per_s": numbers / 1e6}


def centres(data: LabelledClips, sample_rate: int) -> np.ndarray:
    """Log-mel of the central second of every clip, ``(clips, time, mel)``; shorter ones are padded on both sides."""
    frontend, log_mels = LogMel(sample_rate), []
    for index in range(len(data.clips)):
        samples = torch.from_numpy(np.ascontiguousarray(data.clips.read(index, sample_rate)))
        missing = max(sample_rate - len(samples), 0)
        samples = torch.nn.functional.pad(samples, (missing // 2, missing - missing // 2))
        start = (len(samples) - sample_rate) // 2
        log_mels.append(frontend(samples[start : start + sample_rate])[0].numpy())
    return np.stack(log_mels)


@torch.inference_mode()
def latency(args: argparse.Namespace) -> None:
    """Time every network on one second of noise, all in turn; a call before the timed one fills the caches."""
    torch.set_num_threads(1)
    networks = {}
    for model in args.models:
        if model != FLOOR:
            frontend, trunk = make_network(recipe_of(model, 0, []))
            freeze_strides(trunk)
            networks[model] = (trunk.eval(), frontend(torch.randn(1, 16000)))
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(args.repeats):
        for model, (trunk, log_mel) in networks.items():
            trunk(log_mel)
            began = time.perf_counter()
            trunk(log_mel)
            times[model].append(1000 * (time.perf_counter() - began))
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "peers_latency.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "ms", "ms_low_quartile", "ms_high_quartile", "repeats"])
        for model, values in times.items():
            low, middle, high = statistics.quantiles(values, n=4)
            writer.writerow([model, f"{middle:.3f}", f"{low:.3f}", f"{high:.3f}", len(values)])
            print(f"{model}: {middle:.2f} ms ({low:.2f} to {high:.2f})")


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file; none if it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary(results: Sequence[Mapping[str, str]], timed: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """A row a task and model: mean and sd (n - 1) of the accuracy in %, cost and, where it was timed, latency."""
    groups: dict[tuple[str, str], list[Mapping[str, str]]] = defaultdict(list)
    for row in results:
        groups[row["task"], row["model"]].append(row)
    ms = {row["model"]: float(row["ms"]) for row in timed}
    rows = []
    for (task, model), members in groups.items():
        accuracies = [100 * float(row["accuracy"]) for row in members]
        rows.append(
            {
                "task": task,
                "model": model,
                "seeds": len(members),
                "accuracy": statistics.fmean(accuracies),
                "sd": statistics.stdev(accuracies) if len(members) > 1 else None,
                "mmac_per_s": statistics.fmean(float(row["mmac_per_s"]) for row in members),
                "parameters": int(members[0]["parameters"]),
                "ms": ms.get(model),
            }
        )
    return rows


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto front of (cost, accuracy): points that none beats in one and reaches in the other, by cost."""
    best: list[tuple[float, float]] = []
    for cost, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((cost, accuracy))
    return best


@styled
def figure(rows: Sequence[Mapping[str, Any]]) -> "Figure":
    """Error against MACs, latency and parameters, one row of panels a task; the line is the Pareto front."""
    rows = sorted(rows, key=lambda row: -row["accuracy"])
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    from matplotlib.ticker import LogLocator, NullFormatter

    drawn = new_figure(10.5, 3.4 * len(tasks) + 0.4)
    for axes, task in zip(drawn.subplots(len(tasks), len(PANELS), squeeze=False, sharey="row"), tasks, strict=True):
        for ax, (key, title) in zip(axes, PANELS.items(), strict=True):
            shown = [row for row in rows if row["task"] == task and row[key]]
            if edge := front([(row[key], row["accuracy"]) for row in shown]):
                ax.plot(
                    *zip(*((cost, 100 - accuracy) for cost, accuracy in edge), strict=True),
                    color=FAINT,
                    lw=1.4,
                    zorder=0,
                )
            for row in shown:
                ax.errorbar(
                    row[key], 100 - row["accuracy"], yerr=row["sd"], color=_colour(row["model"]), capsize=2, ls="none",
                    marker=MARKERS[models.index(row["model"]) % len(MARKERS)], label=row["model"],
                )  # fmt: skip
            ax.loglog()
            for scale in (ax.xaxis, ax.yaxis):
                decades = scale is ax.xaxis and key == "parameters"
                scale.set_major_locator(LogLocator(subs=(1,) if decades else (1, 2, 5)))
                scale.set_major_formatter(lambda value, _: f"{value:,g}" if value < 1e4 else f"{value / 1e6:g} M")
                scale.set_minor_formatter(NullFormatter())
            ax.set_xlabel(title)
            ax.margins(0.1)
        axes[0].set_ylabel("test error in %")
        axes[0].set_title(task)
    shared_legend(drawn)
    return drawn


def _colour(model: str) -> str:
    """Blue for networks of this package, orange for others, grey for what is no network."""
    return PALETTE[0] if model in OURS else PALETTE[5] if model == FLOOR else PALETTE[1]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table, the best accuracy of a task first."""
    lines = ["| task | model | accuracy, % | seeds | parameters | MMAC/s | ms |", "|---|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row["task"], -row["accuracy"])):
        accuracy = f"{row['accuracy']:.1f}" + ("" if row["sd"] is None else f" ± {row['sd']:.1f}")
        ms = "-" if row["ms"] is None else f"{row['ms']:.2f}"
        cells = [
            row["task"],
            row["model"],
            accuracy,
            row["seeds"],
            f"{row['parameters']:,}",
            f"{row['mmac_per_s']:.1f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} | {ms} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    default = [*OURS, *PEERS, FLOOR]
    every = ",".join([*default, *VARIANTS])
    for name in ("train", "time", "figure"):
        command = commands.add_parser(name)
        command.add_argument("--out", type=Path, default=Path("peers"))
        command.add_argument("--models", type=lambda text: text.split(","), default=default, help=every)
        if name == "train":
            command.add_argument("data", type=Path, metavar="DATA_FOLDER")
            command.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", dest="settings")
            command.add_argument("--column", default="label")
            command.add_argument("--group", help="column whose clips stay on one side of a split, such as speaker")
            command.add_argument("--seeds", type=lambda text: list(map(int, text.split(","))), default=[0, 1, 2])
            command.add_argument("--epochs", type=int, default=12)
        if name == "time":
            command.add_argument("--repeats", type=int, default=30)
        if name == "figure":
            command.add_argument("--plot", type=Path, default=Path("peers.png"))
    args = parser.parse_args()
    unknown = set(args.models) - {*default, *VARIANTS}
    if unknown:
        parser.error(f"there is no model {', '.join(sorted(unknown))}; there are {every}")
    if args.command == "train":
        train(args)
    elif args.command == "time":
        latency(args)
    else:
        rows = summary(read(args.out / "peers.csv"), read(args.out / "peers_latency.csv"))
        rows = [row for row in rows if row["model"] in args.models]
        if not rows:
            parser.error(f"{args.out / 'peers.csv'}: has no rows of these models; train them first")
        save(figure(rows), args.plot)
        print(f"{table(rows)}\n\nwrote {args.plot}")


if __name__ == "__main__":
    main()
