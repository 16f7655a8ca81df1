"""From a recipe to a run directory.

`run` is the way from end to end: `recipe` is checked, `build` and `transforms` make what `loop` needs; `steps`,
`optimizers` and `schedules` are what one update consists of; `saving`, `checkpoints`, `conditions` and `resuming` are
what is written so that a run can resume exactly; `run_testing` scores the model that was kept, by `evaluation`.
"""
