"""Image classification with `ResNet`: the second half of the paper, small and apart from the audio path.

`data`: images from parquet files or class folders, and the views a network sees of them. `train`: SGD with a
stepped learning rate. `recipe`: recipes of `recipes/images/` and the runs of their sweeps. `run`: a recipe in,
run directories and a table out.

Source: Riad et al., ICLR 2022, Sections 3.2 and 3.3, and the published code.
"""

from .data import ImageSet, Views, read_images
from .recipe import ImageRecipe, load_image_recipe, plan_runs
from .run import run_images, summarise_images
from .train import ImageClassifier, image_logits, train_images

__all__ = [
    "ImageClassifier",
    "ImageRecipe",
    "ImageSet",
    "Views",
    "image_logits",
    "load_image_recipe",
    "plan_runs",
    "read_images",
    "run_images",
    "summarise_images",
    "train_images",
]
