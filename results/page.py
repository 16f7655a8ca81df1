"""Write the tables of docs/results.md from runs.csv: python results/page.py [FILE]

The page is written by hand, all but what stands between `<!-- table: NAME -->` and `<!-- end -->`: that is made here,
and the command names what it could make for which the page has no such place. NAMEs that begin with `earlier` are of
the runs whose validation clips were drawn one by one.
"""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import tables
from collect import HERE, read_recipe, read_runs
from evidence import FIXED, FOLDING, OURS, Evidence, by_validation, gather
from figure import differences_figure

from audiostride.analysis.plot_style import save
from audiostride.analysis.tables import to_markdown
from audiostride.sections import flatten
from audiostride.training.recipe import load_recipe

PAGE = HERE.parent / "docs" / "results.md"
FIGURE = "results.png"
PLACE = re.compile(r"(<!-- table: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(page: Path) -> None:
    """Renew the tables of the page, and its figure next to it."""
    evidence, earlier = (gather(runs) if runs else None for runs in by_validation(read_runs()))
    made = {}
    if evidence:
        made |= pieces(evidence) | {"what was run": to_markdown(list(tables.what_was_run(evidence)))}
        made["resting"] = to_markdown(list(tables.resting()))
        if panels := tables.differences(evidence):
            save(differences_figure(panels), page.with_name(FIGURE))
    if earlier:
        made |= {f"earlier {name}": text for name, text in pieces(earlier).items()}
    if evidence and earlier:
        made["by group and by clip"] = to_markdown(list(tables.by_group_and_by_clip(evidence, earlier)))
    made["commands"] = f"```console\n{commands([found for found in (evidence, earlier) if found])}\n```\n"
    text = page.read_text(encoding="utf-8")
    for name in made.keys() - {match[2] for match in PLACE.finditer(text)}:
        if made[name] and not name.startswith("earlier"):
            print(f"not on the page: {name}", file=sys.stderr)
    page.write_text(
        PLACE.sub(lambda match: f"{match[1]}\n{made.get(match[2], '')}\n{match[3]}", text), encoding="utf-8"
    )
    print(f"wrote {page}")


def pieces(evidence: Evidence) -> dict[str, str]:
    """Tables as Markdown by the name of their place; "" where no run is of a kind."""
    made = {
        "learned aliasing and the best others": tables.best_others(evidence),
        "learned strides": tables.minus_baselines(evidence, OURS),
        "learned strides, R=4": tables.minus_baselines(evidence, "DiffStride R=4"),
        "accuracy": tables.accuracy(evidence),
        "each task": tables.each_task(evidence),
        "learned aliasing": tables.minus_baselines(evidence, FOLDING, FIXED),
        "learned alpha": tables.learned_alpha(evidence),
        "parts of aliasing": tables.parts_of_aliasing(evidence),
        "ramp width": tables.ramp_width(evidence),
        "cut-offs": tables.cutoffs(evidence),
        "shared strides": tables.shared_strides(evidence),
        "initial strides": tables.initial_strides(evidence),
        **tables.studies(evidence),
    }
    return {name: to_markdown(list(found)) for name, found in made.items()}


def commands(parts: Sequence[Evidence]) -> str:
    """The commands that make the runs again, a line each."""
    seeds: dict[str, list[int]] = {}
    for run in (run for evidence in parts for run in evidence.runs.values()):
        settings, seed = run.name.rsplit(" ", 1)
        seeds.setdefault(_command(settings), []).append(int(seed))
    return "\n".join(f"{line} --seeds {','.join(map(str, sorted(found)))}" for line, found in sorted(seeds.items()))


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
