"""From a recipe to a run directory: the loop, its checkpoints, processes, evaluation and sweeps. Knows the recipe.

`run` is the way from end to end: `recipe` is checked, `setup` and `transforms` build what `loop` needs, `steps` and
`schedules` are what one update consists of, `keeping`, `checkpoints`, `conditions` and `resuming` are what is written
and read back, and `run_testing` scores the model that was kept, by `evaluation`.
"""
