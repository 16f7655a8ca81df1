"""Write docs/results.md from runs.csv: python results/page.py [FILE]

Every figure and every sentence that depends on one is computed here; nothing is written by hand.
"""

import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from baselines import FIGURE, accuracy, differences, each_task, finding, paper_ramp
from cells import wrap
from collect import HERE, read_recipe, read_rows, read_runs
from evidence import DATA, GROUPS, PLANNED, SEEDS, Evidence, by_validation, gather, machine_of
from figure import differences_figure
from groups import read_groups
from learned_aliasing import aliasing_parts, learned_aliasing
from learned_strides import cutoffs, shared_strides, smoothness, starts, studies
from validation import by_clip_or_group

from audiostride.analysis.plot_style import save
from audiostride.sections import flatten
from audiostride.training.recipe import load_recipe

PAGE = HERE.parent / "docs" / "results.md"

HEAD = """# Results

<!-- Written by `python results/page.py` from results/*.csv; changes made here are lost. -->
"""

METHOD = """## How to read it

Small networks on small sets: the figures compare methods under equal conditions and are not record scores. Accuracy
is on test clips in percent, mean ± standard deviation (n - 1) over seeds. Cost is in million multiply-accumulates
(MMAC) per second of audio or per image, counted by one rule for all runs. Differences have 95 % confidence intervals
from a paired bootstrap over the seeds that both methods have and over groups of test clips: each of 10,000 resamples
draws, with replacement, one group and one seed fewer than there are. A difference is **statistically significant** if
its interval excludes zero. With one seed the interval holds for that seed alone; with three it is too narrow where
seeds differ more than groups do. Intervals are not corrected for the number of comparisons. Bold: the best of a row or
column, or a significant difference.
"""

DETAILS = (aliasing_parts, smoothness, cutoffs, shared_strides, starts, studies)
"""Sections on parts and settings of the methods; each is empty where there are no runs of its kind."""


def main(page: Path) -> None:
    """Write the page, and its figure beside it."""
    evidence, earlier = (gather(runs) if runs else None for runs in by_validation(read_runs()))
    page.write_text(write_page(evidence, earlier), encoding="utf-8")
    print(f"wrote {page}")
    if evidence and (panels := differences(evidence)):
        save(differences_figure(panels), page.with_name(FIGURE))
        print(f"wrote {page.with_name(FIGURE)}")


def write_page(evidence: Evidence | None, earlier: Evidence | None) -> str:
    """The whole page as Markdown, of runs with validation by group and of earlier ones with validation by clip."""
    parts = [HEAD]
    if evidence:
        parts += [
            finding(evidence),
            METHOD,
            conditions(evidence),
            accuracy(evidence),
            each_task(evidence),
            learned_aliasing(evidence),
            *(section(evidence) for section in DETAILS),
        ]
    else:
        parts.append("No run has been collected yet.\n")
    if evidence and earlier:
        parts.append(by_clip_or_group(evidence, earlier))
    if earlier:
        sections = (paper_ramp, each_task, *DETAILS)
        parts += [re.sub("^## ", "### ", section(earlier), flags=re.MULTILINE) for section in sections]
    if known := [found for found in (evidence, earlier) if found]:
        parts.append(repeat(known))
    return "\n".join(part for part in parts if part)


def conditions(evidence: Evidence) -> str:
    """What was run on what, and what is missing."""
    rows = read_rows("runs.csv")
    order = [*DATA, *(row["data"] for row in rows)]
    rows.sort(key=lambda row: order.index(row["data"]))
    lines = ["## What was run", ""]
    for data in dict.fromkeys(row["data"] for row in rows):
        clips = next(row["clips"] for row in rows if row["data"] == data)
        lines.append(wrap(f"- **{data}**: {DATA.get(data, 'a folder of sounds')}. {_grouping(clips)}", "  "))
    lines.append("")
    machines = Counter(machine_of(row) for row in {(row["recipe"], row["seed"]): row for row in rows}.values())
    hardware = "; ".join(f"{machine} ({n} runs)" for machine, n in machines.items())
    text = (
        f"Hardware and versions: {hardware}. The networks are narrow: {_networks(rows)}; "
        "the methods differ only in what their names say. "
        "The model tested is that of the best validation epoch; a tenth of the training speakers, instruments or "
        "recordings is for validation only."
    )
    if "images" in evidence.tasks:
        text += " On images it is that of the last epoch, as in the paper, and none is held out."
    lines += [wrap(text), ""]
    gaps = {task: missing for task in PLANNED if (missing := list(_gaps(evidence, task)))}
    if gaps:
        lines += ["Planned but not yet run:", ""]
        lines += [wrap(f"- {task}: {'; '.join(missing)}", "  ") for task, missing in gaps.items()]
    else:
        lines.append("None of the planned runs is missing.")
    return "\n".join(lines) + "\n"


def _grouping(clips: str) -> str:
    """What is resampled of a test set."""
    row = read_groups().get(clips)
    if row is None:
        return "Resampled: test items one by one, as it is not known which belong together."
    what = GROUPS.get((row["data"], row["column"]), f"values of {row['column']}")
    return f"Resampled: the {row['n_groups']} {what} in the test set."


def _networks(rows: Sequence[Mapping[str, str]]) -> str:
    """Size and training of the usual network of each data set; those that share them are named together."""
    usual: dict[tuple[str, ...], list[str]] = {}
    for data in dict.fromkeys(row["data"] for row in rows):
        of_data = [row for row in rows if row["data"] == data]
        counted = Counter((row["channels"], row["epochs"], row["batch_size"]) for row in of_data)
        trunk = read_recipe(of_data[0]["recipe"])["model"]["name"]
        usual.setdefault((trunk, *counted.most_common(1)[0][0]), []).append(data)
    said = []
    for (trunk, channels, epochs, batch), names in usual.items():
        where = f" on {' and '.join(names)}" if len(usual) > 1 else ""
        size = f"{channels.replace(' ', ', ')} channels"
        said.append(f"`{trunk}` with {size}, trained for {epochs} epochs in batches of {batch}{where}")
    return "; ".join(said)


def _gaps(evidence: Evidence, task: str) -> Iterable[str]:
    if task not in evidence.tasks:
        yield "everything"
        return
    for name, wanted in SEEDS.items():
        there = len(evidence.cells[task, name]["seeds"]) if (task, name) in evidence.cells else 0
        if there < wanted:
            yield f"{name} ({there} of {wanted} seeds)" if there else name


def repeat(parts: Sequence[Evidence]) -> str:
    """The commands that make the runs again."""
    seeds: dict[str, list[int]] = {}
    for run in (run for evidence in parts for run in evidence.runs.values()):
        settings, seed = run.name.rsplit(" ", 1)
        seeds.setdefault(_command(settings), []).append(int(seed))
    lines = [f"{command} --seeds {','.join(map(str, sorted(found)))}" for command, found in sorted(seeds.items())]
    return "\n".join(
        [
            "## Reproducing the runs",
            "",
            "Run these with the data in folders of these names in the current directory. `results/settings/` holds",
            "the full recipe of every run, which later changes of defaults do not affect:",
            "",
            "```console",
            *lines,
            "```",
            "",
            "Two commands add runs to this page, `python results/collect.py RUN_DIR...` and `python results/page.py`.",
            "`results/runs.csv` has a line for every run and task, and which test clips it classified correctly, so",
            "that the intervals above can be recomputed.",
            "",
        ]
    )


def _command(name: str) -> str:
    """The sweep that trains the settings of a name: a recipe of `recipes/` and what differs from it."""
    settings = read_recipe(name)
    base = HERE / "recipes" / f"{settings['name']}.yaml"
    if not base.is_file():
        return f"audiostride sweep results/settings/{name}.yaml"
    usual = flatten(load_recipe(str(base)).model_dump())
    differing = {
        key: value
        for key, value in flatten(settings).items()
        if (key not in usual or usual[key] != value) and (key in usual or value is not None)
    }
    values = {k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in differing.items()}
    words = [shlex.quote(f"{key}={value}") for key, value in values.items()]
    return " ".join([f"audiostride sweep results/recipes/{base.name}", *words])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE)
