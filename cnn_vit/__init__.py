"""cnn_vit: the honest CNN-and-ViT laboratory in JAX.

The public verbs, each imported when it is first used:

    build(name, num_classes, **changes)     a network, without values
    load(run)                               a trained network from a run folder
    batches(source, ...)                    (images, labels) from any data
    train(settings, workdir)                a run: train, evaluate, checkpoint, resume
    evaluate(network, source, split)        exact metrics of a split
    predict(network, images)                class probabilities of images
    describe(network_or_name, image_size)   layers, shapes, parameters, MACs, receptive fields
"""

import functools
import importlib

VERBS = {
    "build": "cnn_vit.models",
    "load": "cnn_vit.training.trained",
    "batches": "cnn_vit.data.batches",
    "train": "cnn_vit.training.loop",
    "evaluate": "cnn_vit.training.evaluation",
    "predict": "cnn_vit.training.prediction",
    "describe": "cnn_vit.analysis.table",
}
__all__ = ["batches", "build", "describe", "evaluate", "load", "predict", "train"]


def __getattr__(name: str):
    if name not in VERBS:
        raise AttributeError(f"cnn_vit has no {name!r}; it has {', '.join(VERBS)}")
    _settle()
    return getattr(importlib.import_module(VERBS[name]), name)


@functools.cache
def _settle() -> None:
    """Hands on what the environment says of downloads, before the first verb is used; the command line does so too."""
    from cnn_vit import process
    from cnn_vit.files import cache

    cache.configure(**process.cache_environment())


def __dir__() -> list[str]:
    return sorted([*globals(), *VERBS])
