"""The package as a whole."""

import subprocess
import sys

import audiostride


def test_importing_the_package_loads_and_opens_nothing() -> None:
    code = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import audiostride\n"
        "assert not {'torch', 'numpy', 'soundfile', 'typer', 'rich'} & set(sys.modules)\n"
        "assert not [name for name in opened if not name.endswith(('.py', '.pyc', '.pyi'))], opened\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_public_name_exists_and_is_documented() -> None:
    for name in audiostride.__all__:
        value = getattr(audiostride, name)
        assert name == "__version__" or value.__doc__, name
    assert set(audiostride.__all__) <= set(dir(audiostride))


def test_training_modules_do_not_load_the_terminal_libraries() -> None:
    code = "import sys, audiostride.training.run\nassert not {'typer', 'rich', 'librosa'} & set(sys.modules)\n"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
