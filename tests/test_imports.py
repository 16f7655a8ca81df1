"""The house: which package may import which, read from the imports themselves."""

import ast
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import audiostride

ROOT = Path(audiostride.__file__).parent

LEFT_OF = {
    "": [],
    "layers": [""],
    "models": ["", "layers"],
    "data": [""],
    "training": ["", "layers", "models", "data"],
    "analysis": ["", "layers", "models", "data", "training"],
    "inference": ["", "layers", "models", "data", "training"],
    "cli": ["", "layers", "models", "data", "training", "analysis", "inference"],
}
"""The packages that each may import besides itself; "" are the few modules beside them: errors, files, mel scale."""


def imports() -> dict[str, set[tuple[str, str]]]:
    """For each module the (module, name) pairs it imports, those inside functions too, those for types only not."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(("audiostride", *path.relative_to(ROOT).with_suffix("").parts))
        is_package = module.endswith(".__init__")
        module = module.removesuffix(".__init__")
        pairs = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if node in for_types:
                continue
            if isinstance(node, ast.Import):
                pairs |= {(alias.name, "") for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                parents = module.split(".")[
                    : None if is_package and node.level == 1 else -node.level + is_package or None
                ]
                whole = ".".join([*parents, node.module] if node.module else parents) if node.level else node.module
                pairs |= {(whole, alias.name) for alias in node.names}
        found[module] = pairs
    return found


IMPORTS = imports()


def package(module: str) -> str:
    """The package below audiostride that a module is in; "" for a module beside the packages."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEFT_OF else ""


def modules_of(pairs: set[tuple[str, str]]) -> set[str]:
    """The modules of this project that are imported, whole or a name of theirs."""
    return {
        f"{module}.{name}" if f"{module}.{name}" in IMPORTS else module
        for module, name in pairs
        if module.split(".")[0] == "audiostride"
    }


@pytest.mark.parametrize("module", IMPORTS)
def test_a_module_imports_only_what_stands_left_of_it(module):
    if module in ("audiostride", "audiostride.__main__"):  # they hand everything out
        return
    own = package(module)
    foreign = {other for other in modules_of(IMPORTS[module]) if package(other) not in (own, *LEFT_OF[own])}
    assert not foreign - {"audiostride"}, f"{module} imports {sorted(foreign)}"


def test_no_module_imports_itself_by_a_detour():
    TopologicalSorter({module: modules_of(pairs) - {module} for module, pairs in IMPORTS.items()}).prepare()


def test_layers_know_torch_and_nothing_else():
    third_party = {
        module.split(".")[0] for name, pairs in IMPORTS.items() if package(name) == "layers" for module, _ in pairs
    }
    assert third_party - set(sys.stdlib_module_names) == {"audiostride", "torch"}


def test_every_package_that_is_imported_is_a_declared_dependency():
    """A wheel in an empty environment finds what it imports; extras are imported inside functions that say so."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [project["dependencies"], *(extras[name] for name in extras if name not in ("dev", "docs"))]
    declared = {canonicalize_name(Requirement(line).name) for part in lines for line in part}
    imported = {module.split(".")[0] for pairs in IMPORTS.values() for module, _ in pairs}
    homes = packages_distributions()
    assert not {
        top
        for top in imported - set(sys.stdlib_module_names) - {"audiostride", "pydantic_core"}  # the latter is pydantic
        if not declared & {canonicalize_name(home) for home in homes.get(top, [top])}
    }


def test_only_the_command_line_knows_the_terminal():
    users = {
        name for name, pairs in IMPORTS.items() for module, _ in pairs if module.split(".")[0] in ("typer", "rich")
    }
    assert {package(name) for name in users} == {"cli"}


def test_no_private_name_leaves_its_module():
    private = {
        (name, module, imported)
        for name, pairs in IMPORTS.items()
        for module, imported in pairs
        if module.split(".")[0] == "audiostride" and imported.startswith("_") and not imported.startswith("__")
    }
    assert not private


def test_every_package_says_what_it_is_in_a_sentence():
    for name in filter(None, LEFT_OF):
        docstring = ast.get_docstring(ast.parse((ROOT / name / "__init__.py").read_text(encoding="utf-8")))
        assert (docstring or "").partition("\n")[0].endswith("."), name


LONG_MODULE, LONG_FUNCTION = 500, 80  # lines; a function's docstring does not count
MANY_PARAMETERS = 15
LONG_ON_PURPOSE = {("training/loop.py", "train")}
"""The training loop, whose stages are to be read in one place, in their order; each is a function."""


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_and_functions_are_short_enough_to_be_read(path):
    name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONG_MODULE
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        assert len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) <= MANY_PARAMETERS, node.name
        if (name, node.name) not in LONG_ON_PURPOSE:
            described = node.body[0] if ast.get_docstring(node) else None
            docstring = described.end_lineno - described.lineno + 1 if described else 0
            assert node.end_lineno - node.lineno + 1 - docstring <= LONG_FUNCTION, node.name
