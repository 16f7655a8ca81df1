"""Write the tables of documents from the CSV files beside this script: python benchmarks/tables.py [FILE...]

A table follows each line `<!-- table: NAME -->` of a page and is replaced; the text around it is not touched.
"""

import csv
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).parent
PAGES = [
    HERE.parent / "docs" / name
    for name in ("cost.md", "data.md", "models.md", "finetune.md", "events.md", "confidence.md", "resolution.md")
]

FORMS = {
    "spectral": ("spectral", ""),
    "R = 1": ("diffstride", "1"),
    "R = 2": ("diffstride", "2"),
    "R = 4": ("diffstride", "4"),
    "FFT form, R = 4": ("fft", "4"),
}
ALIASING = {
    "strided": ("strided", ""),
    "strided, widened": ("widened", ""),
    "R = 1": ("diffstride", "1"),
    "learned aliasing": ("aliasing", "1"),
    "after the ReLU": ("after", "1"),
    "in 2 groups, after": ("groups", "1"),
    "fixed strides, in 2 groups, after": ("fixed", ""),
}


def main(pages: Sequence[Path]) -> None:
    """Rewrite the tables of pages."""
    for page in pages:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"wrote {page}")


def with_tables(text: str) -> str:
    """A page with every table as its CSV file has it."""
    return re.sub(r"(<!-- table: (.+) -->\n\n)(?:\|.*\n)*", lambda match: match[1] + TABLES[match[2]]() + "\n", text)


def step_time(what: str) -> str:
    """Time of training or inference of all forms, by network and batch, as multiples of the strided twin's."""
    return _forms(what, "ms", "time / strided", batches=("1", "8", "64"), per_mac=what == "training")


def step_aliasing(name: str) -> str:
    """Training and inference with learned aliasing, by network and batch: milliseconds, and multiples of strided's.

    A dash stands where a file has no row.
    """
    found = {(r["what"], r["network"], r["batch"], r["method"], r["R"]): r for r in read(name)}
    body = []
    for network, batch in dict.fromkeys((network, batch) for _, network, batch, *_ in found):
        for what, column in (("training", "ms"), ("inference", "ms"), ("inference", "MMAC")):
            rows = [found.get((what, network, batch, *form)) for form in ALIASING.values()]
            ratio = "MAC ratio" if column == "MMAC" else "time / strided"
            label = "MMAC" if column == "MMAC" else f"{what}, ms"
            body.append([network, batch, label, *(f"{row[column]} ({row[ratio]})" if row else "-" for row in rows)])
    return markdown(["network", "batch", "", *ALIASING], body)


def step_memory() -> str:
    """Memory of a training step, likewise."""
    return _forms("training", "peak MB", "memory / strided", batches=("8", "64"))


def plain(name: str, columns: Sequence[str] = (), methods: Sequence[str] = ()) -> str:
    """A CSV file as it is, or some of its columns, or the rows of some methods."""
    rows = [row for row in read(name) if not methods or row["method"] in methods]
    columns = columns or [column for column in rows[0] if column != "machine"]
    return markdown(columns, [[row[column] for column in columns] for row in rows])


def input_wait() -> str:
    """What of a training run is waiting for data, with and without cache and decoding processes."""
    shown = ("cache", "workers", "wait_percent", "clips_per_s", "bare_clips_per_s_before", "bare_clips_per_s_after")
    head = ["decoded cache", "decoding processes", "waiting, %", "clips/s", "bare step's before", "after", "run / bare"]
    return markdown(head, [[row[name] for name in (*shown, "run_to_bare")] for row in read("input_wait.csv")])


def read(name: str) -> list[dict[str, str]]:
    """Rows of a CSV file of this folder."""
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _forms(what: str, unit: str, ratio: str, batches: Sequence[str], per_mac: bool = False) -> str:
    found = {
        (row["network"], row["batch"], row["method"], row["R"]): row for row in read("step.csv") if row["what"] == what
    }
    body = []
    for network in ("paper", "narrow"):
        for batch in batches:
            strided = found[network, batch, "strided", ""]
            ours, fft = (found[network, batch, method, "4"] for method in ("diffstride", "fft"))
            multiples = [found[network, batch, *form][ratio] for form in FORMS.values()]
            line = [network, batch, strided[unit], *multiples, f"{float(ours[unit]) / float(fft[unit]):.2f}"]
            if per_mac:
                line.append(f"{float(ours[ratio]) / float(ours['MAC ratio, full']):.2f}")
            body.append(line)
    head = ["network", "batch", f"strided, {unit.split()[-1]}", *FORMS, "ours / FFT, R = 4"]
    return markdown([*head, "R = 4 by its MACs"] if per_mac else head, body)


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table."""
    first, *others = (f"| {' | '.join(line)} |" for line in [head, *body])
    return "\n".join([first, f"|{'---|' * len(head)}", *others])


def peers() -> str:
    """Accuracy and cost of networks of other people beside this package's."""
    from peers import summary, table

    return table(summary(read("peers.csv"), read("peers_latency.csv")))


def few_shot() -> str:
    """Accuracy with a few clips a class, by three ways."""
    from few_shot import table

    return table(read("few_shot.csv"))


def resolution(name: str) -> str:
    """A table of `resolution.csv`."""
    import resolution_tables

    return getattr(resolution_tables, name)()


def confidence() -> str:
    """False alarms an hour of `confidence.csv` at two recalls, by how a network was trained."""
    body = []
    for row in sorted(read("confidence.csv"), key=lambda row: (row["way"] != "plain", row["way"], row["seed"])):
        cells = [row["way"], row["seed"], row["accuracy"]]
        for name in ("esc", "zero", "digits"):
            counts = [row[f"{name} alarms at {recall}"] for recall in (70, 80)]
            shown = [f"{int(n) / float(row[f'{name} hours']):,.0f} ({n})" if n else "-" for n in counts]
            cells.append("; ".join(shown))
        body.append(cells)
    headings = ["trained", "seed", "accuracy in %", "environmental sounds", 'word "zero"', "other words"]
    return markdown(headings, body)


def onsets() -> str:
    """Half widths of onset errors by the time between frames, of sounds 20 dB above the noise, and of all words."""
    rows = [row for row in read("onsets.csv") if row["SNR dB"] == "20" or row["sound"] == "words"]
    columns = ["sound", "SNR dB", "network", "frame ms", "predicted ±ms", "measured ±ms", "median ms"]
    return markdown(columns, [[row[column] for column in columns] for row in rows])


TABLES: dict[str, Callable[[], str]] = {
    "training": lambda: step_time("training"),
    "aliasing": lambda: step_aliasing("step.csv"),
    "aliasing, one thread": lambda: step_aliasing("step_aliasing_one_thread.csv"),
    "inference": lambda: step_time("inference"),
    "memory": step_memory,
    "operators": lambda: plain("operators.csv"),
    "layer": lambda: plain("layer.csv"),
    "log_mel": lambda: plain("log_mel.csv"),
    "one_hour": lambda: plain("one_hour.csv"),
    "compile": lambda: plain("compile.csv"),
    "input_wait": input_wait,
    "resolution: grid": lambda: resolution("grid"),
    "resolution: methods": lambda: resolution("methods"),
    "resolution: gain": lambda: resolution("gain"),
    "confidence": confidence,
    "resolution: times": lambda: plain("resolution_times.csv"),
    "soundscapes": lambda: plain("soundscapes.csv"),
    "event_training": lambda: plain("event_training.csv"),
    "events_hour": lambda: plain("events_hour.csv"),
    "onsets": onsets,
    "peers": peers,
    "few_shot": few_shot,
    "bfloat16": lambda: plain(
        "step_bfloat16.csv",
        ["what", "method", "R", "ms", "time / strided", "peak MB", "memory / strided"],
        ["strided", *(method for method, _ in FORMS.values())],
    ),
}


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or PAGES)
