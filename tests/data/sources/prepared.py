"""A small data set of the catalog of TensorFlow Datasets, and two that lack labels; needs the extra tfds."""

import io

import numpy as np
import pytest
from PIL import Image

library = pytest.importorskip("tensorflow_datasets", reason="needs the extra tfds: pip install 'cnn_vit[tfds]'")
pytest.importorskip("array_record", reason="needs the extra tfds: pip install 'cnn_vit[tfds]'")
library.disable_progress_bar()

COUNTS = {"train": 30, "test": 6, "unsupervised": 3}


def draw_image(split, index):
    """Returns noise (H, 12, 3), 10 to 12 pixels high, of its own for each split and index."""
    return np.random.default_rng([len(split), index]).integers(0, 256, (10 + index % 3, 12, 3), np.uint8)


def open_png(pixels):
    """Returns pixels as a PNG file in memory, open at its beginning."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


class Tiny(library.core.GeneratorBasedBuilder):
    """Noise in three kinds, of which two are one group."""

    VERSION = library.core.Version("1.2.0")
    SUPPORTED_VERSIONS = [library.core.Version("1.10.0")]  # noqa: RUF012

    def _info(self):
        kinds = library.features.ClassLabel(names=["ant", "bee", "cat"])
        groups = library.features.ClassLabel(names=["insect", "mammal"])
        image = library.features.Image(shape=(None, None, 3))
        return library.core.DatasetInfo(
            builder=self,
            features=library.features.FeaturesDict({"image": image, "label": kinds, "group": groups}),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split, count) for split, count in COUNTS.items()}

    def _generate_examples(self, split, count):
        for index in range(count):
            kind = self.kind(split, index)
            image = open_png(draw_image(split, index))
            yield f"{index:03}", {"image": image, "label": kind, "group": int(kind == 2)}

    def kind(self, split, index):
        """Returns the label of an example; -1 is the catalog's way to say that there is none."""
        return index % 3


class Unlabeled(Tiny):
    """The same without the labels of all test images."""

    def kind(self, split, index):
        return -1 if split == "test" else index % 3


class Gaps(Tiny):
    """The same without the label of one image to train on."""

    def kind(self, split, index):
        return -1 if (split, index) == ("train", 17) else index % 3
