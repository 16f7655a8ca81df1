"""The page on images."""

import statistics
from collections.abc import Mapping, Sequence

from cells import highest, numbers, sample_sd, shown_strides, wrap
from collect import read_recipe
from evidence import DATA, KINDS, OURS, in_groups, machine_of, method_order

from audiostride.analysis.tables import Cell, Table, points, to_markdown
from audiostride.analysis.wording import percent


def image_section(rows: Sequence[Mapping[str, str]]) -> str:
    """Image runs: downsampling against initial strides."""
    if not rows:
        return ""
    text = ["## Images", ""]
    for data in dict.fromkeys(row["data"] for row in rows):
        text.append(wrap(f"- **{data}**: {DATA.get(data, 'images')}.", "  "))
    if machines := dict.fromkeys(machine_of(row) for row in rows if row["torch"]):
        text += ["", wrap(f"Hardware and versions: {'; '.join(machines)}.")]
    text.append("")
    parts: list[str] = []
    same = ("data", "n_train", "channels", "epochs", "batch_size", "learning_rate")
    for conditions in dict.fromkeys(tuple(row[key] for key in same) for row in rows):
        chosen = [row for row in rows if tuple(row[key] for key in same) == conditions]
        rates = {row["stride_learning_rate"] for row in chosen if row["downsampling"] == "diffstride"}
        groups: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
        for row in chosen:
            kind = KINDS[row["downsampling"]] + (f" R={float(row['smoothness']):g}" if row["smoothness"] else "")
            if row["downsampling"] == "diffstride" and len(rates) > 1:
                kind += f", stride rate {row['stride_learning_rate']}"
            if (alpha := read_recipe(row["recipe"])["model"].get("aliasing")) is not None:
                kind += ", learned aliasing" + in_groups(alpha)
            groups.setdefault((kind, row["initial_strides"]), []).append(row)
        means = {key: statistics.fmean(float(row["test_accuracy"]) for row in group) for key, group in groups.items()}
        body = []
        for (kind, start), group in sorted(groups.items(), key=lambda item: (item[0][1], method_order(item[0][0]))):
            values = [float(row["test_accuracy"]) for row in group]
            best = highest(mean for (_, other), mean in means.items() if other == start)
            cells = [
                Cell(start),
                Cell(kind),
                Cell(percent(statistics.fmean(values), sample_sd(values)), means[kind, start] == best),
            ]
            cells += [Cell(numbers(sorted(int(row["seed"]) for row in group)))]
            cells += [Cell(f"{statistics.fmean(float(row['macs']) for row in group) / 1e6:.1f}")]
            cells += [
                Cell(f"{int(group[0]['parameters']) / 1e3:.0f}"),
                Cell("; ".join(shown_strides(row["strides"]) for row in group)),
            ]
            cells += [Cell(f"{float(group[0]['published']):.1f}" if group[0]["published"] else "-")]
            body.append(cells)
        data, n_train, channels, epochs, batch, rate = conditions
        title = (
            f"{data}, {int(n_train):,} images: {_image_network(channels)}, {epochs} epochs, "
            f"batch {batch}, learning rate {rate}"
        )
        header = [
            "initial strides",
            "method",
            "accuracy",
            "seeds",
            "MMAC per image",
            "thousand parameters",
            "learned strides, by seed",
            "published",
        ]
        macs = {key: statistics.fmean(float(row["macs"]) for row in group) for key, group in groups.items()}
        parts += [_image_differences(means, macs), _recoveries(means), to_markdown([Table(title, header, body)])]
    return "\n".join(text) + "\n" + "\n".join(filter(None, parts))


def _image_network(channels: str) -> str:
    return f"ResNet with {channels.replace(' ', ', ')} channels" if channels[:1].isdigit() else channels


def _image_differences(means: Mapping[tuple[str, str], float], macs: Mapping[tuple[str, str], float]) -> str:
    """Learned strides beside the others with the same initial strides, in a sentence made from means."""
    lines = []
    for rival in dict.fromkeys(method for method, _ in means if not method.startswith("DiffStride")):
        said = [
            f"{points(means[method, start] - means[rival, start])} with initial strides {start} at "
            f"{macs[method, start] / macs[rival, start]:.1f} times the multiply-accumulates"
            for method, start in sorted(means, key=lambda key: (key[1], key[0]))
            if method == OURS and (rival, start) in means
        ]
        if said:
            lines.append(f"Compared with {rival}, {OURS} differs, in points, by {'; '.join(said)}.")
    return wrap(" ".join(lines)) + "\n" if lines else ""


def _recoveries(means: Mapping[tuple[str, str], float]) -> str:
    """What the worst initial strides cost each method, in a sentence made from means."""
    falls = []
    for method in dict.fromkeys(method for method, _ in means):
        found = {start: mean for (other, start), mean in means.items() if other == method}
        if len(found) > 1:
            worst, best = (choose(found, key=found.__getitem__) for choose in (min, max))
            falls.append(f"{method} {points(found[worst] - found[best])} points ({worst} compared with {best})")
    return wrap(f"The worst initial strides compared with the best: {', '.join(falls)}.") + "\n" if falls else ""
