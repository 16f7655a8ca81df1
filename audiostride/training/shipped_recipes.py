"""The recipes that ship with the package, and reading a recipe's file."""

from pathlib import Path

from ..errors import RecipeError
from ..files import write_new
from ..sections import nearest

MAX_BYTES = 256 * 1024


def shipped_recipes(kind: str = "") -> dict[str, Path]:
    """Name and path of every recipe that ships with the package.

    Args:
        kind: sub-folder of `recipes/`: "" for audio, "images".

    Example:
        >>> "ripples" in shipped_recipes()
        True
    """
    installed = Path(__file__).parents[1] / "recipes"
    folder = installed if installed.is_dir() else Path(__file__).parents[2] / "recipes"
    return {path.stem: path for path in sorted((folder / kind).glob("*.yaml"))}


def summary_of(path: Path) -> str:
    """The first line of a recipe's opening comment.

    Example:
        >>> summary_of(shipped_recipes()["ripples"])
        'Moving ripples: temporal rate and spectral scale of noise, two tasks on one embedded data set.'
    """
    first = read_text(path).partition("\n")[0]
    return first.removeprefix("#").strip()


def copy_recipe(name: str, out: Path) -> Path:
    """Copy a shipped recipe to a file, which must not be there yet.

    Raises:
        RecipeError: if there is no such recipe.
        UsageError: if the file is there.
        WriteError: if it cannot be written.

    Example:
        >>> import tempfile
        >>> copied = copy_recipe("ripples", Path(tempfile.mkdtemp(), "mine.yaml"))
        >>> read_text(copied) == read_text(find_recipe("ripples"))
        True
    """
    shipped = shipped_recipes() | shipped_recipes("images")
    if name not in shipped:
        raise RecipeError(f"{name}: no such recipe{nearest(name, shipped)}; shipped recipes: {', '.join(shipped)}")
    write_new(out, read_text(shipped[name]))
    return out


def find_recipe(recipe: str) -> Path:
    """The file of a recipe: a path, or the name of a shipped one.

    Raises:
        RecipeError: if there is none; names the nearest.

    Example:
        >>> find_recipe("ripple")
        Traceback (most recent call last):
            ...
        audiostride.errors.RecipeError: ripple: no such recipe file; did you mean 'ripples'?; ...
    """
    if Path(recipe).is_file():
        return Path(recipe)
    shipped = shipped_recipes() | shipped_recipes("images")
    if recipe in shipped:
        return shipped[recipe]
    raise RecipeError(
        f"{recipe}: no such recipe file{nearest(Path(recipe).stem, shipped)}; shipped recipes: {', '.join(shipped)}"
    )


def read_text(path: Path) -> str:
    """The text of a recipe's file.

    Raises:
        RecipeError: if it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RecipeError(f"{path}: is larger than {MAX_BYTES // 1024} kB, too large for a recipe")
        return content.decode("utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8 text ({error})") from error
