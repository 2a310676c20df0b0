"""What several files of this folder share: finished runs, whose values others start from."""

import pytest
from quick import compile_quickly
from running import VIT, train


@pytest.fixture(scope="session")
def origin(tmp_path_factory):
    """A finished run, whose values others start from."""
    folder = tmp_path_factory.mktemp("origin") / "run"
    with compile_quickly():
        train("frozen", folder, "pretrained.freeze=none")
    return folder


@pytest.fixture(scope="session")
def vit_origin(tmp_path_factory):
    """A finished run of a ViT without a mark of its training but its values."""
    folder = tmp_path_factory.mktemp("origin") / "vit"
    with compile_quickly():
        train("vit", folder, *VIT)
    return folder
