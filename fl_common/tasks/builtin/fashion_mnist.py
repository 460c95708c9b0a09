"""Fashion-MNIST: 70,000 pictures of clothes, 28x28 grey pixels, 10 classes; from keras.datasets or IDX files.

Source: Xiao, Rasul and Vollgraf, arXiv:1708.07747.
"""

from fl_common.settings.schema import Settings
from fl_common.tasks.builtin.images import image_task
from fl_common.tasks.task import Task


def make(settings: Settings) -> Task:
    """Return the task. Its model takes uint8 [n, 28, 28]; the default is mlp."""
    return image_task("fashion_mnist", (28, 28, 1), settings, default="mlp")
