"""A first look at data: sizes and colors from headers, and the counts of the classes."""

import io

import numpy as np
import pytest
from image_files import encode_png, noise, write_images, write_zip
from PIL import Image

from cnn_vit import data
from cnn_vit.data.audit import headers
from cnn_vit.data.audit.headers import summarize_headers
from cnn_vit.data.decode import images
from cnn_vit.errors import UserError

ORIENTATION = 274  # EXIF tag


def section(path, **changes):
    return data.section_for_path(path, image_size=None, channels=None, fit="crop") | changes


def test_counts_sizes_and_colors_are_those_of_all_parts_together(tmp_path):
    write_images(tmp_path, {"train/a": 3, "train/b": 2, "val/a": 1, "val/b": 1}, size=(6, 8))
    write_images(tmp_path, {"train/c": 2}, size=(9, 5))
    for path in [tmp_path, write_zip(tmp_path, tmp_path.parent / "all.zip")]:
        summary = summarize_headers(section(path))
        assert summary.classes == ("a", "b", "c")
        assert summary.counts.tolist() == [4, 3, 2]
        assert sorted(map(tuple, summary.image_sizes.tolist())) == [(6, 8)] * 7 + [(9, 5)] * 2
        assert (summary.colored, summary.sampled, summary.skipped) == (True, False, 0)


def test_a_turned_image_is_measured_upright_and_nothing_is_decoded(tmp_path, monkeypatch):
    write_images(tmp_path, {"a": 6, "b": 6}, size=(6, 8))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    buffer = io.BytesIO()
    Image.fromarray(noise(10, 20)).save(buffer, "JPEG", exif=exif)
    (tmp_path / "a" / "turned.jpg").write_bytes(buffer.getvalue())
    monkeypatch.setattr(images, "image_pixels", None)
    assert (20, 10) in map(tuple, summarize_headers(section(tmp_path)).image_sizes.tolist())


def test_images_without_color_are_gray(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(6):
            (tmp_path / name / f"{number}.png").write_bytes(encode_png(noise(5, 5, seed=number)))
    assert not summarize_headers(section(tmp_path)).colored
    (tmp_path / "b" / "5.png").write_bytes(encode_png(noise(5, 5, 3)))
    assert summarize_headers(section(tmp_path)).colored


def test_of_many_images_the_headers_of_some_taken_evenly_are_read(tmp_path, monkeypatch):
    for number, name in enumerate(write_images(tmp_path, {"a": 8, "b": 8})):
        (tmp_path / name).write_bytes(encode_png(noise(number + 1, 5)))
    monkeypatch.setattr(headers, "MOST_READ", 4)
    summary = summarize_headers(section(tmp_path))
    assert summary.counts.tolist() == [8, 8]
    assert len(summary.image_sizes) == 4 + 2 + 2  # of train, validation and test, which have 12, 2 and 2
    assert np.ptp(summary.image_sizes[:4, 0]) >= 8  # and not the first four
    assert summary.sampled


def test_arrays_are_of_one_size(tmp_path):
    np.savez(tmp_path / "a.npz", train_x=noise(6, 5, 7), train_y=np.arange(6) % 3)
    summary = summarize_headers(section(tmp_path / "a.npz"))
    assert (summary.classes, summary.image_sizes.tolist(), summary.colored) == (("0", "1", "2"), [[5, 7]], False)
    assert summary.counts.tolist() == [2, 2, 2]


def test_files_that_cannot_be_read_are_skipped_where_the_settings_say_so(tmp_path):
    write_images(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "a" / "bad.png").write_bytes(b"bad")
    assert summarize_headers(section(tmp_path)).counts.tolist() == [11, 10]  # loading names it
    summary = summarize_headers(section(tmp_path, on_bad_image="skip"))
    assert (summary.counts.tolist(), summary.skipped) == ([10, 10], 1)
    for path in [*(tmp_path / "a").iterdir(), *(tmp_path / "b").iterdir()]:
        path.write_bytes(b"bad")
    with pytest.raises(UserError, match="21 of 21 images cannot be read"):
        summarize_headers(section(tmp_path))
