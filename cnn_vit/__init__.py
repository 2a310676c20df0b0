"""cnn_vit: the honest CNN-and-ViT laboratory in JAX.

This package offers nine public verbs. Each is imported when it is first used, so that `import cnn_vit` stays fast:

    build(name, num_classes, **changes)     builds a network, without values
    load(run)                               loads a trained network from a run folder, or by a name of weights
    batches(source, ...)                    gives (images, labels) from any data
    train(settings, workdir)                does a run: trains, evaluates, saves checkpoints, resumes
    evaluate(network, source, split)        measures exact metrics on a split
    predict(network, images)                gives the class probabilities of images
    compare(config, out)                    compares ways to get a classifier on one data set: trains, tests, says which
    sweep(settings, space, out=...)         trains many points of a space of settings, and says which is best
    describe(network_or_name, image_size)   lists layers, shapes, parameters, MACs, receptive fields
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
    "compare": "cnn_vit.studies.compare",
    "sweep": "cnn_vit.studies.sweep",
    "describe": "cnn_vit.analysis.table",
}
__all__ = ["batches", "build", "compare", "describe", "evaluate", "load", "predict", "sweep", "train"]


def __getattr__(name: str):
    """Imports the module of a public verb and returns the verb; Python calls this for names it does not find here.

    Raises:
        AttributeError: the name is not a public verb.
    """
    if name not in VERBS:
        raise AttributeError(f"cnn_vit has no {name!r}; it has {', '.join(VERBS)}")
    _configure_cache()
    return getattr(importlib.import_module(VERBS[name]), name)


@functools.cache
def _configure_cache() -> None:
    """Tells the download cache, once, what the environment variables say of it; commands do so themselves."""
    from cnn_vit import process
    from cnn_vit.files import cache

    cache.configure(**process.cache_environment())


def __dir__() -> list[str]:
    return sorted([*globals(), *VERBS])
