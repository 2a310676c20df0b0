"""torchvision and timm for the torch lane, where they are installed; a test that asks for a missing one is skipped.

pip install --no-deps torchvision timm
"""

import importlib
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

# torchvision declares what these do without computing, even where they are not; no network of ours uses them.
COMPILED = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
DEFINED: list = []  # what a library of torch defines lives as long as the library


def import_torchvision() -> ModuleType:
    """Imports torchvision; its compiled operations are stubs where this machine cannot load them."""
    torch = pytest.importorskip("torch")
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        pytest.skip("no torchvision here; pip install --no-deps torchvision")
    if not DEFINED:
        try:
            torch.ops.load_library(str(Path(spec.origin).with_name("_C.so")))
        except OSError:  # built for another torch, or for a GPU
            library = torch.library.Library("torchvision", "DEF")
            for schema in COMPILED.values():
                library.define(schema)
            DEFINED.append(library)
    return importlib.import_module("torchvision")


def import_timm() -> ModuleType:
    """Imports timm, which imports torchvision."""
    import_torchvision()
    if find_spec("timm") is None:
        pytest.skip("no timm here; pip install --no-deps timm")
    return importlib.import_module("timm")


def import_transformers() -> ModuleType:
    """Imports Hugging Face's transformers."""
    if find_spec("transformers") is None:
        pytest.skip("no transformers here; pip install transformers")
    return importlib.import_module("transformers")
