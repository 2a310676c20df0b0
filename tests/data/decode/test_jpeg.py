"""The choice of the JPEG decoder: what decodes after it, what it is called, and that kept images follow it."""

import io
from importlib import metadata

import numpy as np
import pytest
from PIL import Image, features

from cnn_vit.data.decode import images, jpeg
from cnn_vit.errors import UserError

LEVELS = 0 if features.check_feature("libjpeg_turbo") else 4  # that the pixels of another libjpeg may differ by


@pytest.fixture(autouse=True)
def fastest_decoder_afterwards():
    """Gives the process its usual decoder back after each test."""
    yield
    jpeg.use_decoder("fastest")


@pytest.fixture
def content():
    """The bytes of a JPEG file of 20 x 30 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def decode_beside_pillow(content: bytes) -> np.ndarray | None:
    """What `decode_jpeg` gives: the pixels, or None where Pillow is to read the file."""
    return jpeg.decode_jpeg(content, Image.open(io.BytesIO(content)), (30, 20))


def test_without_a_choice_the_fastest_decoder_is_used(content):
    pytest.importorskip("simplejpeg")
    assert decode_beside_pillow(content) is not None


def test_pillow_decodes_once_it_is_chosen_and_gives_the_same_pixels(content):
    fastest_pixels = images.decode(content, channels=3)
    assert jpeg.use_decoder("pillow") == "Pillow"
    assert decode_beside_pillow(content) is None
    pillow_pixels = images.decode(content, channels=3)
    assert np.abs(fastest_pixels.astype(int) - pillow_pixels).max() <= LEVELS


def test_fastest_is_simplejpeg_where_it_is_installed(content):
    pytest.importorskip("simplejpeg")
    jpeg.use_decoder("pillow")
    assert jpeg.use_decoder("fastest") == f"simplejpeg {metadata.version('simplejpeg')}"
    assert decode_beside_pillow(content).shape == (20, 30, 3)


def test_fastest_is_pillow_where_simplejpeg_is_not_installed(content, monkeypatch):
    monkeypatch.setattr(jpeg, "INSTALLED", None)
    assert jpeg.use_decoder("fastest") == "Pillow"
    assert decode_beside_pillow(content) is None
    monkeypatch.undo()  # before the fixture above chooses again


def test_images_that_are_kept_decoded_are_named_after_the_decoder_in_use():
    pytest.importorskip("simplejpeg")
    jpeg.use_decoder("pillow")
    pillow_suffix = jpeg.VERSION
    jpeg.use_decoder("fastest")
    fastest_suffix = jpeg.VERSION
    assert pillow_suffix == ""
    assert fastest_suffix == f"+{metadata.version('simplejpeg')}"


def test_an_unknown_decoder_is_refused_with_the_choices_and_changes_nothing(content):
    jpeg.use_decoder("pillow")
    with pytest.raises(UserError, match="no JPEG decoder 'turbo'; there is fastest, pillow"):
        jpeg.use_decoder("turbo")
    assert decode_beside_pillow(content) is None
