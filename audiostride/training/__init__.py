"""From a recipe to a run directory: the loop, its checkpoints, processes, evaluation and sweeps. Knows the recipe."""
