"""Plant faults in the code and see which of them the quick tests notice: the figures of docs/reliability.md.

    python tests/mutants.py [--sample 120] [--seed 0] [--packages training analysis] [--imports] [--planted]

needs cosmic-ray and coverage (`make mutants` installs them). Cosmic-ray's operators say what can be changed in
`PACKAGES`; of that a sample is drawn, the same number from each package. A first run of the quick tests under
coverage tells which tests run which line (kept in build/coverage). Each mutant lives in a copy of the project and
meets the doctests of its module and the tests that run its line, those that run little code first. The table has an
exact interval (Clopper-Pearson, 95 %) for the share that is killed. `--imports` does without the run under coverage: a
mutant meets the test files that import its module, and if it survives those of its package. `--planted` tries the
faults that people once planted, each against the test that states the fact.
"""

import argparse
import ast
import difflib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("layers", "models", "training", "data", "analysis", "inference")
MAX_TESTS = 15
"""Test functions that a mutant meets at most, beside the doctests of its module."""

LIMIT_S = 240
"""A mutant that has taken so much processor time has changed a loop, and counts as killed."""

OF_PACKAGE = {
    "training": "train training_settings tasks reliability run_files run_directory recipe sweep finetune trust planted",
    "analysis": "report compare cutoffs listen response strangers results planted",
    "inference": "predict row_file names timeline export operations predict_events containers models",
}
"""Test files that a survivor meets, with `--imports`."""

ROOT = Path(__file__).parents[1]
COVERAGE = ROOT / "build" / "coverage"
SKIPPED = ("NoOp", "VariableReplacer", "VariableInserter")  # these want names to put in

PLANTED = [
    (
        "training/loop.py",
        '                clamp_strides_(model, settings.highest_stride or float("inf"))\n',
        "",
        "strides_lie_between",
    ),
    ("training/steps.py", "self.task_weights.get(t, 1.0) * x", "x", "by_their_weights or weight_0"),
    ("training/loop.py", "_validate(run.judged,", "_validate(model,", "average_that_is_validated"),
    ("training/steps.py", "        mean_buffer.copy_(buffer)\n", "        pass\n", "batch_norm_statistics"),
    ("training/steps.py", "totals) / len(group)", "totals) / 3", "short_last_step"),
    ("data/preparation.py", "len(numbers) / (len(labels) * counts)", "counts / len(numbers)", "balanced_weights"),
    ("data/preparation.py", "(len(numbers) - present) / present", "present / len(numbers)", "balanced_weights"),
    ("training/evaluation.py", "(below + n - n_positive)", "(below + n_positive)", "however_rare"),
    ("data/cache.py", '{_FORMAT} {sample_rate}"', '{_FORMAT}"', "second_entry"),
    ("data/splits.py", "or int(size > 2)", "or 0", "of_three_clips"),
    ("analysis/plot_style.py", "{escape(description)}", "{description}", "write_into_the_page"),
    ("analysis/listening.py", "sound[window // 2 : window // 2 + len(part)]", "sound[: len(part)]", "early_nor_late"),
    ("models/cost.py", "            activations += others * c_out * m\n", "", "activations_are"),
    (
        "models/cost.py",
        "activations += others * taps * c_in * m",
        "activations += others * c_in * m",
        "activations_are",
    ),
    ("models/cost.py", "activations += others * c_out * n", "activations += others * c_in * n", "activations_are"),
]
"""File below audiostride/, what stands there, the fault, and the test of tests/test_planted.py that must fail."""


class Mutant(NamedTuple):
    """A change of one module.

    Attributes:
        module: path below the project.
        line: its line, from 1.
        code: of the whole mutated module.
        change: the lines before and after.
    """

    module: str
    line: int
    code: str
    change: str


def annotated(source: str) -> set[tuple[int, int]]:
    """Lines and columns of type annotations, which no test can judge."""
    places = set()
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            found = getattr(node, name, None)
            if isinstance(found, ast.AST):
                places |= {(n.lineno, n.col_offset) for n in ast.walk(found) if hasattr(n, "lineno")}
    return places


def changed_lines(before: str, after: str) -> str:
    """The lines that differ, on one line."""
    changes = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "  ->  ".join(line[0] + " " + line[1:].strip() for line in changes if line[:3] not in ("---", "+++", "@@ "))


def possible(package: str) -> list[tuple[str, str, int, int]]:
    """All mutations of a package: module, operator, which of its occurrences, line."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import MutationVisitor, get_ast

    class Places(MutationVisitor):
        def visit(self, node):
            self.found = [*getattr(self, "found", []), *(start for start, _ in self.operator.mutation_positions(node))]
            return node

    found = []
    for path in sorted((ROOT / "audiostride" / package).glob("*.py")):
        source = path.read_text()
        tree, skipped = get_ast(source), annotated(source)
        skipped_lines = {line for line, _ in skipped}
        for name in sorted(plugins.operator_names()):
            if name.partition("/")[2] in SKIPPED:
                continue
            visitor = Places(-1, plugins.get_operator(name)())
            visitor.walk(tree)
            for occurrence, (line, _) in enumerate(getattr(visitor, "found", [])):
                # `|` in a signature is a type; there is hardly another operator in one.
                if not (line in skipped_lines and "BinaryOperator_BitOr" in name):
                    found.append((str(path.relative_to(ROOT)), name, occurrence, line))
    return found


def sample(n: int, seed: int, packages: Sequence[str] = PACKAGES) -> list[Mutant]:
    """Mutants drawn at random, as many of each package."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    mutants, generator = [], random.Random(seed)
    for package in packages:
        everything = possible(package)
        for module, operator, occurrence, line in generator.sample(everything, -(-n // len(packages))):
            before = (ROOT / module).read_text()
            after = mutate_code(before, plugins.get_operator(operator)(), occurrence)
            try:
                differs = after is not None and ast.dump(ast.parse(before)) != ast.dump(ast.parse(after))
            except SyntaxError:  # the star that parts a function's arguments is no product
                continue
            if after is not None and differs:
                mutants.append(Mutant(module, line, after, changed_lines(before, after)))
    generator.shuffle(mutants)  # so that what is done when it is broken off is a sample, too
    return mutants


def planted() -> Iterator[tuple[Mutant, list[str]]]:
    """The faults that people planted, and the test against each."""
    for module, old, new, test in PLANTED:
        path = f"audiostride/{module}"
        before = (ROOT / path).read_text()
        if old not in before:
            sys.exit(f"{path}: {old!r} does not stand there any more; mend PLANTED")
        after = before.replace(old, new, 1)
        line = before[: before.index(old)].count("\n") + 1
        yield Mutant(path, line, after, changed_lines(before, after)), ["tests/test_planted.py", "-k", test]


def measure_coverage() -> None:
    """Run the quick tests once, noting which test runs which line."""
    COVERAGE.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", "-q", "-m", "not slow", "tests"]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def tests_of_lines() -> dict[str, dict[int, list[str]]]:
    """For each module and line the tests that run it, those first that run few lines; line 0: of the whole module."""
    import coverage

    data = coverage.CoverageData(str(COVERAGE))
    data.read()
    contexts = {file: data.contexts_by_lineno(file) for file in data.measured_files()}
    n_lines: dict[str, int] = defaultdict(int)
    for lines in contexts.values():
        for names in lines.values():
            for name in names:
                n_lines[name] += 1
    found: dict[str, dict[int, list[str]]] = {}
    for file, lines in contexts.items():
        module = "audiostride" + file.rpartition("/audiostride")[2]
        lines[0] = list({name for names in lines.values() for name in names})
        found[module] = {
            line: [_node(name) for name in sorted(filter(None, names), key=lambda n: (n_lines[n], n))]
            for line, names in lines.items()
        }
    return found


def tests_that_import(module: str) -> list[str]:
    """The test files that import a module, those of few lines first."""
    package, name = Path(module).parent.name, Path(module).stem
    pattern = re.compile(rf"audiostride\.{package}(\.| import .*\b){name}\b")
    found = [path for path in (ROOT / "tests").glob("test_*.py") if pattern.search(path.read_text())]
    return [f"tests/{path.name}" for path in sorted(found, key=lambda path: path.stat().st_size)]


def _node(context: str) -> str:
    module, _, test = context.removeprefix("tests.").partition(".")
    return f"tests/{module}.py::{test}"


def start(mutant: Mutant, arguments: list[str], tree: Path) -> int:
    """Test a mutant in a copy of the project, in a process that has imported what is slow to import already."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S))
    os.environ |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    os.chdir(tree)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.path[:] = [str(tree), *(p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "tests"))]
    (tree / mutant.module).write_text(mutant.code)
    import pytest

    code = pytest.main(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *arguments], plugins=[Witness(tree)])
    os._exit(int(code))


class Witness:
    """Notes which test fails, so that one can see that it passes without the mutant."""

    def __init__(self, tree: Path):
        self.path = tree / "witness"
        self.path.write_text("")

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.path.write_text(report.nodeid)

    def pytest_collectreport(self, report) -> None:
        self.pytest_runtest_logreport(report)


def judge(jobs: list[tuple[Mutant, list[str]]], processes: int) -> list[str]:
    """What becomes of each mutant: "killed", "timed out" or "survived"."""
    import librosa  # noqa: F401  all this is imported once, before the fork
    import pytest  # noqa: F401
    import torch
    import torchmetrics  # noqa: F401

    torch.set_num_threads(1)
    assert "audiostride" not in sys.modules
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    trees = []
    for number in range(processes):
        trees.append(folder / str(number))
        ignored = shutil.ignore_patterns(".git", ".venv", "build", "runs", "__pycache__", ".*_cache", ".hypothesis")
        shutil.copytree(ROOT, trees[-1], ignore=ignored)
    verdicts, waiting = [""] * len(jobs), list(enumerate(jobs))[::-1]
    running: dict[Path, tuple[int, int, float]] = {}
    try:
        while waiting or running:
            for tree in trees:
                if tree in running:
                    index, child, began = running[tree]
                    done, status = os.waitpid(child, os.WNOHANG)
                    if not done and time.monotonic() - began < 10 * LIMIT_S:  # of a child that sleeps for ever
                        continue
                    if not done:
                        os.killpg(child, signal.SIGKILL)
                        os.waitpid(child, 0)
                    code = os.waitstatus_to_exitcode(status) if done else -signal.SIGKILL
                    late = code in (-signal.SIGKILL, -signal.SIGXCPU)
                    verdicts[index] = "timed out" if late else "survived" if code in (0, 5) else "killed"
                    mutant = jobs[index][0]
                    shutil.copyfile(ROOT / mutant.module, tree / mutant.module)
                    by = f"  by {(tree / 'witness').read_text()}" if verdicts[index] == "killed" else ""
                    print(f"{verdicts[index]:9} {mutant.module}:{mutant.line}  {mutant.change}{by}", flush=True)
                    del running[tree]
                if waiting:
                    index, (mutant, arguments) = waiting.pop()
                    if arguments:
                        running[tree] = (index, start(mutant, arguments, tree), time.monotonic())
                    else:
                        verdicts[index] = "survived"
                        print(f"no test   {mutant.module}:{mutant.line}  {mutant.change}", flush=True)
            time.sleep(0.1)
    finally:
        for _, child, _ in running.values():
            os.killpg(child, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description="Plant faults and count those that the quick tests notice.")
    parser.add_argument("--sample", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--packages", nargs="+", default=PACKAGES, choices=PACKAGES)
    parser.add_argument("--imports", action="store_true", help="choose tests by what they import, without coverage")
    parser.add_argument("--planted", action="store_true", help="only the faults that people planted")
    arguments = parser.parse_args()
    if arguments.planted:
        jobs = list(planted())
        verdicts = judge(jobs, arguments.processes)
        print(f"\n{verdicts.count('killed')} of {len(jobs)} planted faults killed")
        sys.exit(verdicts.count("killed") < len(jobs))
    found = sample(arguments.sample, arguments.seed, arguments.packages)
    if arguments.imports:
        jobs = [(mutant, [mutant.module, *tests_that_import(mutant.module)]) for mutant in found]
        verdicts = judge(jobs, arguments.processes)
        rest = [i for i, verdict in enumerate(verdicts) if verdict == "survived"]
        more = {name: [f"tests/test_{part}.py" for part in files.split()] for name, files in OF_PACKAGE.items()}
        wide = [(found[i], more[Path(found[i].module).parent.name]) for i in rest]
        for i, verdict in zip(rest, judge(wide, arguments.processes), strict=True):
            verdicts[i] = verdict
    else:
        if not COVERAGE.exists():
            measure_coverage()
        lines, jobs = tests_of_lines(), []
        for mutant in found:
            of_module = lines.get(mutant.module, {})
            tests = of_module.get(mutant.line) or of_module.get(0, [])
            jobs.append((mutant, [*tests[:MAX_TESTS], mutant.module]))
        verdicts = judge(jobs, arguments.processes)
    print("\n| package | mutants | killed | timed out | survived | share noticed |\n|---|---|---|---|---|---|")
    for package in (*arguments.packages, ""):
        own = [v for v, (m, _) in zip(verdicts, jobs, strict=True) if m.module.startswith(f"audiostride/{package}")]
        killed, late, survived = (own.count(verdict) for verdict in ("killed", "timed out", "survived"))
        low, high = exact_interval(killed + late, len(own))
        share = f"{100 * low:.0f} to {100 * high:.0f} %"
        print(f"| {package or 'all'} | {len(own)} | {killed} | {late} | {survived} | {share} |")


def exact_interval(successes: int, tries: int) -> tuple[float, float]:
    """The Clopper-Pearson interval of a share, at 95 %."""
    from scipy.stats import binomtest

    found = binomtest(successes, tries).proportion_ci(0.95, "exact")
    return float(found.low), float(found.high)


if __name__ == "__main__":
    main()
