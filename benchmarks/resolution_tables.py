"""Tables of `resolution.csv`, for `tables.py`."""

import re
import statistics

import numpy as np
from tables import markdown, read

from audiostride.analysis.significance import bootstrap_interval

SETS = ("words", "pitch", "family", "esc", "modulated noise", "partials")


def grid() -> str:
    """Test accuracy at each fixed resolution, seed 0, full training."""
    rows = [row for row in read("resolution.csv") if (row["method"], row["seed"], row["epochs"]) == ("fixed", "0", "8")]
    found = {(row["setting"], row["set"]): f"{float(row['test']):.1f}" for row in rows}
    counts = {setting: sum(own == setting for own, _ in found) for setting, _ in found}
    settings = sorted(
        (s for s, n in counts.items() if n > 1), key=lambda s: [float(x) for x in re.findall(r"[\d.]+", s)]
    )
    sets = [name for name in SETS if any(other == name for _, other in found)]
    return markdown(["hop, bands, window", *sets], [[s, *(found.get((s, n), "-") for n in sets)] for s in settings])


def methods() -> str:
    """Test accuracy of what comes before the network: the mean over seeds, with how many where there are several."""
    scores: dict[tuple[str, str, str], list[float]] = {}
    cost: dict[tuple[str, str], str] = {}
    for row in read("resolution.csv"):
        method, default = row["method"], row["setting"] == "10 ms 64 bands 25 ms"
        if method in ("halving", "search"):
            name = (method, "")
        elif method != "fixed" and method != "settled":
            name = (method, row["setting"])
        elif default and row["epochs"] == "8":
            name = ("fixed default", row["setting"])
        else:
            continue
        scores.setdefault((*name, row["set"]), []).append(float(row["test"]))
        cost[name] = row["mmacs_per_second"]
    sets = [name for name in SETS if any(key[2] == name for key in scores)]

    def cell(found: list[float]) -> str:
        if not found:
            return "-"
        spread = f" ± {statistics.stdev(found):.1f} ({len(found)})" if len(found) > 1 else ""
        return f"{statistics.fmean(found):.1f}{spread}"

    body = [[*name, cost[name], *(cell(scores.get((*name, own), [])) for own in sets)] for name in cost]
    return markdown(["before the network", "setting", "MMAC/s", *sets], body)


def gain() -> str:
    """What halving chose and gained over the default, with the 95 % interval over groups of test clips and seeds."""
    rows = read("resolution.csv")
    groups = {row["data"]: row["groups"].split() for row in read("../results/groups.csv")}
    folders = {"words": "commands", "pitch": "notes", "family": "notes", "esc": "esc"}
    body = []
    for name in SETS:
        own = [row for row in rows if row["set"] == name]
        found = {row["seed"]: row for row in own if row["method"] == "halving"}
        if "0" not in found:
            continue
        whole = [row for row in own if row["method"] == "fixed" and row["epochs"] == "8"]
        found = {row["seed"]: row for row in whole if row["setting"] == found["0"]["setting"]} | found
        default = {row["seed"]: row for row in whole if row["setting"] == "10 ms 64 bands 25 ms"}
        seeds = sorted(found.keys() & default.keys())
        difference = np.stack([_correct(found[seed]) - _correct(default[seed]) for seed in seeds])
        group = np.array(groups[folders[name]]) if name in folders else np.arange(difference.shape[1]).astype(str)
        difference = difference[:, : len(group)]
        numbers = np.unique(group, return_inverse=True)[1]
        total = np.stack([np.bincount(numbers, weights=one) for one in difference])
        mean, low, high = bootstrap_interval(total, np.stack([np.bincount(numbers)] * len(seeds)).astype(float))
        scores = [float(r["test"]) for r in own if r["method"] == "fixed" and r["epochs"] == "8" and r["seed"] == "0"]
        regret = f"{max(scores) - float(found['0']['test']):.1f}" if len(scores) >= 10 and "0" in found else "-"
        chosen = ", ".join(dict.fromkeys(found[seed]["setting"] for seed in seeds))
        tests = [statistics.fmean(float(r[seed]["test"]) for seed in seeds) for r in (default, found)]
        interval = f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
        body.append([name, str(len(seeds)), *(f"{test:.1f}" for test in tests), interval, regret, chosen])
    head = ["set", "seeds", "default", "halving", "difference (95 %)", "below the best of the grid, seed 0", "chosen"]
    return markdown(head, body)


def _correct(row: dict[str, str]) -> np.ndarray:
    """Whether each test clip was right, from the bits of a row; up to 7 zeros follow the last clip."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(row["correct"]), np.uint8)).astype(int)
