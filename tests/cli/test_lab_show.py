"""The command `lab show`: drawings with the numbers of layers, and mistakes in one sentence."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from cnn_vit.__main__ import main
from cnn_vit.analysis import walks
from cnn_vit.cli import _lab_show
from cnn_vit.reports.layer_drawings import LayerMaps


@pytest.fixture
def show(capsys, tmp_path, monkeypatch):
    """Runs `lab show --json` in a folder of its own; returns its answer."""
    monkeypatch.chdir(tmp_path)

    def run_show(*words):
        assert main(["lab", "show", *words, "--json"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        return json.loads(line)

    return run_show


@pytest.fixture
def steps(tmp_path):
    """A gray image of 4 x 4 pixels, whose columns have levels 0, 4, 8 and 16 of 16."""
    path = tmp_path / "steps.png"
    Image.fromarray(np.tile(np.array([0, 64, 128, 255], np.uint8), (4, 1))).save(path)
    return str(path)


def test_a_convolution_of_an_image_by_hand(show, steps):
    answer = show("convolution", steps, "--side=4", "--kernel=1,0,-1", "--stride=2")
    assert answer["image"][0] == [[0], [4], [8], [16]]
    # From column 0 and, one stride farther, not at all: two columns are left of 4 - 3 + 1, and every second stays.
    assert answer["output"] == [[-8]] * 2
    assert answer["frames"] == 2  # one for each output
    assert Image.open(answer["animation"]).n_frames == 2
    with open(answer["drawing"]) as file:
        assert "\N{MINUS SIGN}8</text>" in file.read()


def test_every_subject_writes_its_drawings_and_prints_a_line_that_can_be_followed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for subject, words, frames in (
        ("convolution", ["--channels=3", "--side=5", "--kernel=1,1:2,2:-3,-3"], 5 * 4),  # one for each output
        ("padding", ["--side=4"], 4),  # one for each kind
        ("pooling", ["--side=6", "--size=3"], 2 * 2),
        ("attention", ["--side=4", "--patch=2"], 4 * 3),  # three for each patch
    ):
        assert main(["lab", "show", subject, *words, "--out=drawings"]) == 0
        out = capsys.readouterr().out
        assert out.splitlines()[-1].startswith("next: cnn-vit lab ")
        assert f"drawings/{subject}.gif, {frames} frames" in out
        assert Image.open(tmp_path / "drawings" / f"{subject}.gif").n_frames == frames
        assert (tmp_path / "drawings" / f"{subject}.svg").read_text().startswith("<svg ")


def test_the_table_of_a_convolution_counts_rows_and_products(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--side=6", "--stride=2", "--padding=1", "--dilation=2", "--kernel=1,2/3,4/5,6"]
    assert main(["lab", "show", "convolution", *words]) == 0
    out = capsys.readouterr().out
    # A filter of 3 x 2 with a hole between its weights covers 5 x 3 of 8 x 8 pixels: it begins at rows 0 and 2, and
    # at columns 0, 2 and 4.
    assert "floor((6 + 2 * 1 - 2 * (3 - 1) - 1) / 2) + 1 = 2\n" in out
    assert "2 * 3 outputs * 6 weights = 36\n" in out
    assert main(["lab", "show", "convolution", "--side=3", "--kernel=2"]) == 0
    out = capsys.readouterr().out
    assert "1 x 1 x 1, 1 weight that is used at every position\n" in out
    assert "3 * 3 outputs * 1 weight = 9\n" in out


def test_the_table_of_padding_counts_the_outputs_that_are_not_those_of_zero_padding(show, capsys):
    answer = show("padding", "--side=4", "--kernel=1,0,-1")
    assert main(["lab", "show", "padding", "--side=4", "--kernel=1,0,-1"]) == 0
    out = capsys.readouterr().out
    for kind in ("circular", "reflect", "edge"):
        output = np.array(answer["output"][kind])
        changed = (output != answer["output"]["zero"]).sum()
        (line,) = [line for line in out.splitlines() if line.startswith(kind)]
        assert line.split()[1:4] == [str(changed), "of", str(output.size)]
        assert "outputs of the filter 1,0,-1 are not" in line


def test_the_record_of_attention_leads_from_the_pixels_to_the_output(show):
    answer = show("attention", "--side=4", "--patch=2", "--head_width=2")
    tokens = np.array(answer["tokens"])
    for name, vectors in (("query", "queries"), ("key", "keys"), ("value", "values")):
        projection = answer["projections"][name]
        expected = tokens @ np.array(projection["kernel"]) + projection["bias"]
        np.testing.assert_allclose(answer[vectors], expected, atol=1e-5)
    np.testing.assert_allclose(answer["output"], np.array(answer["weights"]) @ answer["values"], atol=1e-5)


def test_an_image_is_said_to_be_made_small_in_levels_and_what_of_it_is_left_out(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = [Image.new("RGBA", (9, 9), (shade, shade, shade, 128)) for shade in (0, 255)]
    frames[0].save("moving.png", save_all=True, append_images=frames[1:])
    assert main(["lab", "show", "pooling", "moving.png", "--side=4"]) == 0
    said = "moving.png, its middle in gray at 4 x 4 pixels, without its transparency, the first of 2 frames, levels 0"
    assert f"{said} (black) to 16 (white)\n" in capsys.readouterr().out
    letters = " ".join(re.findall(">([^<]+)</text>", (tmp_path / "runs/lab/show/pooling.svg").read_text()))
    assert f"The image is {said} (black) to 16 (white)." in letters


def test_a_folder_may_have_a_dot_in_its_name(show, tmp_path):
    answer = show("pooling", "--side=4", "--out=v1.2")
    assert answer["drawing"] == "v1.2/pooling.svg"
    assert (tmp_path / "v1.2" / "pooling.gif").is_file()


def test_another_seed_is_another_projection(show):
    """The seed is that of `walks.walk_attention`, and not always 0."""
    answer = show("attention", "--side=4", "--patch=2", "--seed=1")
    image = np.array(answer["image"])[..., 0] / 16
    expected = walks.walk_attention(image, patch=2, head_width=3, seed=1)
    np.testing.assert_allclose(answer["queries"], expected.queries, atol=1e-6)
    other = walks.walk_attention(image, patch=2, head_width=3, seed=0)
    assert np.abs(other.queries - expected.queries).max() > 0.1


def test_a_vertical_edge_is_seen_by_the_filter_of_that_name_alone():
    """Columns of 0, 0 and 1: all weight of the right column, which is -1, -2 and -1; rows of them cancel out."""
    columns = np.tile([0, 0, 1], (3, 1))
    for name, seen in (("vertical", (-4, 0)), ("horizontal", (0, -4))):
        kernel = _lab_show.read_kernel(name, 1)[..., 0]
        assert ((kernel * columns).sum(), (kernel * columns.T).sum()) == seen


def test_the_disc_that_is_drawn_in_color_can_be_seen_in_each_color():
    pixels, source = _lab_show.choose_image(None, 8, 3)
    assert source == "a drawn disc, 8 x 8 pixels"
    levels = np.rint(pixels * _lab_show.LEVELS)
    assert (levels.max((0, 1)) - levels.min((0, 1))).min() >= 5


def test_padding_prints_the_kinds_and_how_many_outputs_they_change(show):
    answer = show("padding", "--side=4", "--kernel=sum")
    padded = {kind: np.array(pixels)[..., 0] for kind, pixels in answer["padded"].items()}
    image = np.array(answer["image"])[..., 0]
    np.testing.assert_array_equal(padded["circular"], np.pad(image, 1, mode="wrap"))
    np.testing.assert_array_equal(padded["zero"], np.pad(image, 1))
    assert answer["output"]["zero"][0][0] == image[:2, :2].sum()


def test_filters_of_a_run_before_and_after_training(show, run):
    answer = show("filters", f"--workdir={run}")
    assert (answer["layer"], answer["filters"]) == ("hidden/layers/0", 8)
    assert 0 < answer["change"] < 10
    with open(answer["drawing"]) as file:
        text = file.read()
    assert "before training" in text
    assert answer["start"] == "before training"
    assert "Training moved them by " in text
    assert "8 filters of 8 x 8 pixels and 1 channel." in text


def test_features_are_of_the_image_and_layer_that_are_named_and_of_a_digit_without_one(show, steps, monkeypatch):
    asked = []

    def compare_features(network, image, layer):
        asked.append((network, image, layer))
        return np.zeros((8, 8, 1), np.uint8), [LayerMaps("stem", -np.ones((4, 4, 2)), np.ones((4, 4, 2)))], "before"

    monkeypatch.setattr("cnn_vit.cli._network.load_network", lambda args: args.workdir)
    monkeypatch.setattr("cnn_vit.studies.show.compare_features", compare_features)
    answer = show("features", steps, "--workdir=run", "--layer=stem")
    assert asked == [("run", steps, "stem")]
    assert answer["layers"] == [{"path": "stem", "norm": None, "shape": [4, 4, 2]}]
    with open(answer["drawing"]) as file:
        text = file.read()
    assert ">stem, before</text>" in text
    assert ">2 channels, 4 x 4</text>" in text
    show("features", "--workdir=run")
    _, digit, layer = asked[1]
    assert (digit.shape, int(digit.max()), layer) == ((8, 8), 239, None)  # the first 3 has levels up to 15 of 16


def test_features_of_an_mlp_are_none_and_the_sentence_says_why(run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["lab", "show", "features", f"--workdir={run}"]) == 2
    assert "only convolutions and patches keep the place" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", _lab_show.KERNELS)
def test_a_filter_of_a_name_is_the_same_for_all_channels(name):
    kernel = _lab_show.read_kernel(name, 3)
    assert kernel.shape == (3, 3, 3)
    np.testing.assert_array_equal(kernel[..., 0], kernel[..., 2])
    # Edges see nothing in an even area; sharpening leaves it as it is.
    assert kernel[..., 0].sum() == {"sharpen": 1, "sum": 9}.get(name, 0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "`cnn-vit lab show` takes what to show: convolution, padding, pooling, attention, filters, features"),
        (["convolutoin"], "no subject of lab show 'convolutoin'; did you mean convolution?"),
        (["pooling", "a", "b"], "`cnn-vit lab show pooling` takes one IMAGE, not 2"),
        (["pooling", "none.png"], "there is no image none.png; leave IMAGE out for a handwritten digit"),
        (["pooling", "."], ". is a folder; name one image in it"),
        (["convolution", "--padding_kind=edge"], "--padding_kind=edge has no padding to fill; add --padding=1"),
        (["pooling", "--patch=2"], "--patch belongs to lab show attention, not to pooling; leave it out"),
        (["filters", "a.png"], "filters are the network's own, and need no image; leave a.png out"),
        (["filters"], "no network is named; give --workdir=RUN, or --weights=FILE"),
        (["filters", "--layer=stem"], "--layer belongs to lab show features, not to filters; leave it out"),
        (["pooling", "--model.width=3"], "--model.width=3 belongs to lab show filters and features; leave it out"),
        (["pooling", "--out=a.gif"], "--out=a.gif has the ending of a file; name the folder of the drawings"),
        (["pooling", "--size=9"], "--size=9 is out of its range; it takes 1 to 8"),
        (["pooling", "--quick"], "`cnn-vit lab show` does not take --quick; leave it out"),
        (["convolution", "--channels=2"], "--channels=2 is neither 1, for gray, nor 3, for colors"),
        (["convolution", "--padding=1", "--padding_kind=mirror"], "no kind of padding 'mirror'"),
        (["convolution", "--kernel=vertcal"], "no kernel 'vertcal'; did you mean vertical?"),
        (["convolution", "--kernel=1,2/3"], "--kernel=1,2/3 has rows of different lengths"),
        (["convolution", "--kernel=1,x"], "--kernel=1,x has weights that are not numbers"),
        (["convolution", "--kernel=1:2"], "--kernel=1:2 has 2 channels, and the image 1; give one filter"),
        (["convolution", "--kernel=nan,1"], "--kernel=nan,1 is not of at most 7 x 7 weights below 100"),
        (["convolution", "--side=3", "--dilation=2"], "a window of 5 pixels does not fit into 3"),
        (["convolution", "--side=12", "--padding=4"], "324 positions of the filter are more frames than can be"),
        (["padding", "--padding=0"], "--padding=0 leaves nothing to show; it takes at least 1 here"),
        (["attention", "--patch=2"], "16 patches are more numbers than can be read; make --patch larger than 2"),
        (["convolution", "--kernel=1:2:3"], "--kernel=1:2:3 has 3 channels, and the image 1; add --channels=3"),
        (["attention", "--patch=1", "--side=3"], "--patch=1 is out of its range; it takes 2 to 8"),
        (["attention", "--patch=3"], "8x8 pixels are not whole 3-pixel patches"),
    ],
)
def test_a_mistake_ends_with_its_cause_and_exit_code_2(capsys, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["lab", "show", *words]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("runs/lab/show/*"))


def test_flags_of_show_are_refused_elsewhere(capsys):
    assert main(["lab", "run", "padding", "--stride=2"]) == 2
    assert "`cnn-vit lab run` does not take --stride; leave it out" in capsys.readouterr().err
