"""The page on validation: what changes where validation clips are of groups that training has none of."""

from cells import accuracy_cell, wrap
from evidence import FIXED, FOLDING, OURS, RIVALS, Evidence

from audiostride.analysis.tables import Cell, Table, to_markdown

TEXT = (
    "The runs of the sections above hold validation out by group. Those of the sections below are earlier ones whose "
    "validation clips were drawn one by one, so that a speaker, an instrument or a recording may be in both training "
    "and validation; they compare parts and settings of the methods under equal conditions among themselves. The test "
    "clips are the same for both, and of groups of their own; the widened strided networks differ in width, see the "
    "MMAC of each."
)


def by_clip_or_group(evidence: Evidence, earlier: Evidence) -> str:
    """Test accuracy by method under both ways to hold validation out, where there are runs of both."""
    tried = {name for _, name in evidence.cells}
    columns = [name for name in (*RIVALS, OURS, FOLDING, FIXED) if name in tried]
    rows = []
    for task in [task for task in evidence.tasks if task in earlier.tasks]:
        for title, found in (("by group", evidence), ("by clip", earlier)):
            cells = [found.cells.get((task, name)) for name in columns]
            rows.append([Cell(task), Cell(title), *(accuracy_cell(cell, None) for cell in cells)])
    table = Table("Test accuracy in %, by how validation was held out", ["task", "validation", *columns], rows)
    return f"## Earlier runs, with validation by clip\n\n{wrap(TEXT)}\n\n{to_markdown([table])}"
