"""One process of a training job for tests/test_scale.py; run it alone or under torchrun.

torchrun --standalone --nproc-per-node 2 tests/scale_worker.py OUT [--frozen] [--adaptive] [--taught] [--resume]
"""

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import torch
from small_training import SEED, freeze_batch_norm, small_adaptive_model, small_model, train_small

from audiostride.training.distillation import Teacher
from audiostride.training.processes import gather, process_count, process_index


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--frozen", action="store_true", help="batch norm keeps its statistics")
    parser.add_argument("--adaptive", action="store_true", help="the spectrogram's resolution is learned")
    parser.add_argument("--taught", action="store_true", help="a teacher's answers are learned, too")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--kill-at", type=int, default=0, help="process 1 kills itself at this step of the first start")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()

    torch.set_default_dtype(torch.float64)
    model = small_adaptive_model() if arguments.adaptive else small_model()
    if arguments.frozen:
        freeze_batch_norm(model)
    teacher = Teacher(small_model(SEED + 1), weight=0.7, temperature=2.0) if arguments.taught else None

    def on_step(step: int, *_: Any) -> None:
        first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if step == arguments.kill_at and first_start and process_index() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    # 43 clips: 35 for training, so that batches of 8 end with one of 3, which four processes cannot share evenly.
    train_small(
        model,
        arguments.out,
        n_clips=43,
        epochs=50,
        steps=arguments.steps,
        stride_cost=0.01,
        ema_decay=0.9,
        class_weights={"third": torch.tensor([0.5, 1.0, 3.0])},
        teacher=teacher,
        resume=arguments.resume,
        checkpoint_steps=3,
        on_step=on_step,
    )
    weights = [parameter.detach().tolist() for parameter in model.parameters()]
    assert all(other == weights for other in gather(weights)), "the processes ended with different weights"
    print(f"process {process_index()} of {process_count()} is done")


if __name__ == "__main__":
    main()
