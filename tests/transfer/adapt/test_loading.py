"""Loading: each value of a network is that of the weights, made to fit, or new, and whatever does not fit is listed."""

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_vit import trees
from cnn_vit.errors import UserError
from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values
from cnn_vit.transfer.adapt.freezing import frozen_masks
from cnn_vit.transfer.adapt.loading import Geometry, adapt
from cnn_vit.transfer.adapt.rows import GroupRow, group_rows
from cnn_vit.transfer.weights import Card, Weights

PATCHES = ("patches", "kernel")
STEM = ("stem", "kernel")


def declare(model, classes=3, **keywords):
    return functional(build(model, classes, **keywords))


def make_weights(model, classes=5, **keywords):
    """Weights in which no number is an initial value, those of statistics, biases and scales included."""
    network, rng = declare(model, classes, **keywords), np.random.default_rng(7)

    def draw(leaf):
        return rng.normal(scale=0.5, size=leaf.shape).astype(np.float32)

    params, stats = jax.tree.map(draw, (network.params, network.stats))
    return Weights(params, stats, Card(model, keywords, classes, None, {}))


def load(source, network, geometry=None, **options):
    params, stats = initial_values(network, seed=0)
    geometry = Geometry() if geometry is None else geometry
    return adapt(source, network, dict(params=params, stats=stats), geometry=geometry, **options)


def by_path(tree):
    return {trees.keys_text(path): leaf for path, leaf in trees.leaves_by_path(tree).items()}


def origins(adapted):
    return {trees.keys_text(leaf.path): leaf.origin for leaf in adapted.rows}


def refusal(source, network, geometry=None, **options):
    """The error's sentence and its details."""
    with pytest.raises(UserError) as error:
        load(source, network, geometry, **options)
    return str(error.value), error.value.details


# Loaded and new -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["cifar_resnet/test", "vit/test", "mlp/test"])
def test_all_but_the_head_is_loaded_to_the_bit(model):
    source, network = make_weights(model), declare(model)
    adapted = load(source, network)
    assert trees.differences(adapted.params, network.params) == []
    assert trees.differences(adapted.stats, network.stats) == []
    expected = by_path(source.params) | by_path(source.stats)
    for path, value in (by_path(adapted.params) | by_path(adapted.stats)).items():
        if path.startswith("head/"):
            assert not value.any()
        else:
            assert value is expected[path]
    new = {path for path, origin in origins(adapted).items() if origin != "loaded"}
    assert new == {"head/bias", "head/kernel"}


def test_a_row_says_what_became_of_a_value():
    adapted = load(make_weights("cifar_resnet/test"), declare("cifar_resnet/test"))
    rows = {trees.keys_text(leaf.path): leaf for leaf in adapted.rows}
    assert len(rows) == len(adapted.rows) == 23 + 14  # parameters, then statistics, of 7 batch norms
    kernel, mean, head = rows["stages/1/blocks/0/conv1/kernel"], rows["stem_norm/mean"], rows["head/kernel"]
    assert (kernel.source_shape, kernel.shape, kernel.is_statistic) == ((3, 3, 8, 16), (3, 3, 8, 16), False)
    assert (mean.source_shape, mean.shape, mean.is_statistic) == ((8,), (8,), True)
    assert (head.source_shape, head.shape, head.is_statistic) == (None, (32, 3), False)


def test_a_head_of_the_same_classes_is_loaded_where_it_is_asked_for():
    source, network = make_weights("cifar_resnet/test", classes=3), declare("cifar_resnet/test")
    adapted = load(source, network, keep_head=True)
    assert set(origins(adapted).values()) == {"loaded"}
    assert trees.digest(dict(params=adapted.params, stats=adapted.stats)) == source.digest


def test_a_small_head_is_drawn_from_its_seed_with_a_standard_deviation_of_one_hundredth():
    source, network = make_weights("vit/test", width=64), declare("vit/test", classes=100, width=64)
    small = load(source, network, head="small", seed=1).params["head"]
    assert abs(small["kernel"].std() / 0.01 - 1) < 4 / np.sqrt(2 * 6400)
    assert not small["bias"].any()
    again = load(source, network, head="small", seed=1).params["head"]
    np.testing.assert_array_equal(again["kernel"], small["kernel"])
    other = load(source, network, head="small", seed=2).params["head"]
    assert (other["kernel"] != small["kernel"]).any()


def test_what_a_pattern_leaves_out_keeps_its_initial_values():
    network = declare("cifar_resnet/test")
    adapted = load(make_weights("cifar_resnet/test"), network, load=("stem", "stem_norm", "stages/0..1"))
    params, stats = initial_values(network, seed=0)
    initial = by_path(params) | by_path(stats)
    for path, value in (by_path(adapted.params) | by_path(adapted.stats)).items():
        is_loaded = path.startswith(("stem/", "stem_norm/", "stages/0", "stages/1"))
        assert origins(adapted)[path] == ("loaded" if is_loaded else "new")
        if not is_loaded and not path.startswith("head/"):
            np.testing.assert_array_equal(value, initial[path])
    assert origins(adapted)["stages/1/blocks/0/norm2/var"] == "loaded"
    assert origins(adapted)["stages/2/blocks/0/norm2/var"] == "new"


def test_all_but_some_parts_are_loaded():
    adapted = load(make_weights("vit/test"), declare("vit/test"), load=("all but norm", "cls_token"))
    new = {path for path, origin in origins(adapted).items() if origin == "new"}
    assert new == {"norm/scale", "norm/bias", "cls_token", "head/kernel", "head/bias"}


def test_a_head_that_is_left_out_starts_at_zero_even_where_it_could_be_kept():
    source = make_weights("cifar_resnet/test", classes=3)
    adapted = load(source, declare("cifar_resnet/test"), load=("stages",), keep_head=True)
    assert not adapted.params["head"]["kernel"].any()


# Cut ------------------------------------------------------------------------------------------------------------------


def test_above_a_cut_the_weights_may_have_more_and_a_new_norm_need_not_be_theirs():
    source, network = make_weights("vit/test", depth=3), declare("vit/test", depth=2)
    adapted = load(source, network, new=("norm",), dropped=("blocks/2",))
    assert origins(adapted)["norm/scale"] == "new"
    assert (adapted.params["norm"]["scale"] == 1).all()
    assert origins(adapted)["blocks/1/norm1/scale"] == "loaded"
    del source.params["norm"]
    assert origins(load(source, network, new=("norm",), dropped=("blocks/2",))) == origins(adapted)


def test_a_new_layer_is_new_and_not_those_whose_names_begin_so():
    adapted = load(make_weights("cifar_resnet/test"), declare("cifar_resnet/test"), new=("stem", "stages/2"))
    new = {path.split("/")[0] for path, origin in origins(adapted).items() if origin == "new"}
    assert new == {"stem", "stages", "head"}
    assert origins(adapted)["stem_norm/scale"] == "loaded"


def test_a_head_that_is_not_kept_may_have_other_layers_in_the_weights():
    source, network = make_weights("mlp/test", classes=3), declare("mlp/test")
    source.params["head"]["dense"] = {"kernel": np.zeros((8, 8), np.float32)}
    assert origins(load(source, network))["hidden/layers/0/kernel"] == "loaded"
    assert "head/dense/kernel: in the weights, not in the network" in refusal(source, network, keep_head=True)[0]


def test_more_blocks_without_a_cut_are_refused():
    sentence, details = refusal(make_weights("vit/test", depth=3), declare("vit/test", depth=2), dropped=("blocks/20",))
    assert "weights of vit/test do not fit this network in 16 values" in sentence
    assert "blocks/2/attention/key/bias: in the weights, not in the network" in details


def test_blocks_that_the_pattern_leaves_out_may_be_more():
    adapted = load(make_weights("vit/test", depth=3), declare("vit/test", depth=2), load=("blocks/0..1",))
    assert origins(adapted)["blocks/1/norm1/scale"] == "loaded"


# What does not fit ----------------------------------------------------------------------------------------------------


def test_all_that_does_not_fit_is_listed_with_the_nearest_names():
    source = make_weights("cifar_resnet/test")
    source.params["stem_nrom"] = source.params.pop("stem_norm")
    source.params["stem"] = {"kernel": np.zeros((3, 3, 3, 9), np.float32)}
    del source.stats["stages"][0]["blocks"][0]["norm1"]["var"]
    sentence, details = refusal(source, declare("cifar_resnet/test"))
    assert sorted(details) == [
        "stages/0/blocks/0/norm1/var: not in the weights",
        "stem/kernel: (3, 3, 3, 9) in the weights, (3, 3, 3, 8) in the network",
        "stem_norm/bias: not in the weights; there is stem_nrom/bias",
        "stem_norm/scale: not in the weights; there is stem_nrom/scale",
        "stem_nrom/bias: in the weights, not in the network; there is stem_norm/bias",
        "stem_nrom/scale: in the weights, not in the network; there is stem_norm/scale",
    ]
    assert "in 6 values, the first stem_norm/bias: not in the weights" in sentence


def test_a_single_misfit_stands_in_the_sentence():
    source = make_weights("cifar_resnet/test")
    source.params["body\x1b[31m"] = {"kernel": np.zeros(2, np.float32)}
    sentence, details = refusal(source, declare("cifar_resnet/test"))
    assert sentence.endswith(r"'body\x1b[31m/kernel': in the weights, not in the network")
    assert details == ()


def test_a_statistic_among_the_parameters_is_no_statistic():
    source = make_weights("cifar_resnet/test")
    source.params["stem_norm"]["mean"] = source.stats["stem_norm"].pop("mean")
    _, details = refusal(source, declare("cifar_resnet/test"))
    assert sorted(details) == [
        "stem_norm/mean: in the weights, not in the network; there is stem_norm/mean",
        "stem_norm/mean: not in the weights; there is stem_norm/mean",
    ]


def test_weights_of_another_family_are_refused_in_reasonable_time():
    sentence, details = refusal(make_weights("vit/test", depth=12), declare("cifar_resnet/test"))
    assert sentence.startswith("weights of vit/test do not fit this network in ")
    assert len(details) == 21 + 14 + 12 * 16 + 6  # cifar_resnet/test and vit/test of 12 blocks, but for the heads


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (dict(load=("head",)), "head is new in this network"),
        (dict(load=("stem", "head/kernel")), "head/kernel is new in this network"),
        (dict(load=("stages/2",), new=("stages/2",)), "stages/2 is new in this network"),
        (dict(load=("all but stem", "stem_norm", "stages")), "loads nothing"),
        (dict(load=("stages/7",)), "pretrained.load='stages/7': there is no stages/7; stages has 0..2"),
    ],
)
def test_a_pattern_that_asks_for_what_is_new_is_refused(options, sentence):
    assert sentence in refusal(make_weights("cifar_resnet/test"), declare("cifar_resnet/test"), **options)[0]


# Resized --------------------------------------------------------------------------------------------------------------


def test_positions_of_another_grid_are_resized_and_nothing_else():
    source, network = make_weights("vit/test", image_size=16), declare("vit/test", image_size=(24, 16))
    adapted = load(source, network, Geometry(old_grid=(4, 4), new_grid=(6, 4), input_kernel=PATCHES))
    leaf = next(leaf for leaf in adapted.rows if leaf.path == ("pos_embed", "embedding"))
    assert (leaf.origin, leaf.source_shape, leaf.shape) == ("resized", (17, 8), (25, 8))
    assert list(origins(adapted).values()).count("resized") == 1
    sentence, _ = refusal(source, network)
    assert sentence.endswith("pos_embed/embedding: (17, 8) in the weights, (25, 8) in the network")


def test_as_many_patches_in_another_grid_are_resized():
    source, network = make_weights("vit/test", image_size=(8, 32)), declare("vit/test", image_size=16)
    adapted = load(source, network, Geometry(old_grid=(2, 8), new_grid=(4, 4), input_kernel=PATCHES))
    assert origins(adapted)["pos_embed/embedding"] == "resized"
    adapted = load(source, network, Geometry(old_grid=(4, 4), new_grid=(4, 4), input_kernel=PATCHES))
    assert origins(adapted)["pos_embed/embedding"] == "loaded"


def enlarge_patches(images, old, new):
    """Gray images (B, H, W, 1), each patch resized by itself as Pillow resizes images."""
    rows, columns = images.shape[1] // old, images.shape[2] // old
    enlarged = np.empty((len(images), rows * new, columns * new, 1), np.float32)
    for b, row, column in np.ndindex(len(images), rows, columns):
        patch = images[b, row * old : (row + 1) * old, column * old : (column + 1) * old, 0]
        resized = Image.fromarray(np.ascontiguousarray(patch)).resize((new, new), Image.Resampling.BILINEAR)
        enlarged[b, row * new : (row + 1) * new, column * new : (column + 1) * new, 0] = resized
    return enlarged


def test_larger_patches_of_gray_images_give_the_scores_that_color_gave():
    """A network of 4 x 4 patches of three colors, and what is made of it for 8 x 8 patches of gray."""
    source = make_weights("vit/test", classes=3, image_size=16)
    network = declare("vit/test", patch=8, image_size=32, channels=1)
    geometry = Geometry(old_grid=(4, 4), new_grid=(4, 4), input_kernel=PATCHES)
    adapted = load(source, network, geometry, keep_head=True)
    assert origins(adapted)["patches/kernel"] == "resized"
    gray = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype(np.float32)
    original = declare("vit/test", image_size=16)
    expected, _ = original.apply(source.params, source.stats, np.repeat(gray, 3, axis=-1))
    scores, _ = network.apply(adapted.params, adapted.stats, enlarge_patches(gray, 4, 8))
    assert np.asarray(expected).std() > 0.1
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_the_first_kernel_of_a_convolutional_network_takes_other_channels_and_no_other_kernel_does():
    source, network = make_weights("cifar_resnet/test"), declare("cifar_resnet/test", channels=1)
    adapted = load(source, network, Geometry(input_kernel=STEM))
    kernel = source.params["stem"]["kernel"]
    np.testing.assert_allclose(adapted.params["stem"]["kernel"], kernel.sum(2, keepdims=True), rtol=1e-5, atol=1e-6)
    assert [path for path, origin in origins(adapted).items() if origin == "resized"] == ["stem/kernel"]
    sentence, _ = refusal(source, network, Geometry(input_kernel=("stages", 0, "blocks", 0, "conv1", "kernel")))
    assert sentence.endswith("stem/kernel: (3, 3, 3, 8) in the weights, (3, 3, 1, 8) in the network")


def test_a_first_kernel_of_another_size_that_is_no_patch_embedding_is_refused():
    source = make_weights("cifar_resnet/test")
    source.params["stem"]["kernel"] = np.zeros((5, 5, 3, 8), np.float32)
    sentence, _ = refusal(source, declare("cifar_resnet/test"), Geometry(input_kernel=STEM))
    assert sentence.endswith("stem/kernel: (5, 5, 3, 8) in the weights, (3, 3, 3, 8) in the network")


# Rows for people ------------------------------------------------------------------------------------------------------


def test_a_row_for_each_part_counts_what_is_loaded_frozen_and_decayed():
    """cifar_resnet/test by hand: 3x3 convolutions of 8, 16, 32 filters without biases, each with a batch norm."""
    source, network = make_weights("cifar_resnet/test"), declare("cifar_resnet/test", channels=1)
    adapted = load(source, network, Geometry(input_kernel=STEM), load=("all but stages/2",))
    rows = group_rows(
        network,
        masks=frozen_masks(network, "stem_norm, stages/0", "stored"),
        decays=trees.mask_by_pattern(network.params, "kernel$"),
        leaves=adapted.rows,
    )
    stage0 = 2 * 9 * 8 * 8
    stage1, stage2 = 9 * 8 * 16 + 9 * 16 * 16, 9 * 16 * 32 + 9 * 32 * 32
    assert rows == (
        GroupRow("head", count=99, new=99, decayed=96),
        GroupRow("stages/0", stage0 + 32, loaded=stage0 + 32, frozen=stage0 + 32, statistics=32, frozen_statistics=32),
        GroupRow("stages/1", stage1 + 64, loaded=stage1 + 64, decayed=stage1, statistics=64),
        GroupRow("stages/2", stage2 + 128, new=stage2 + 128, decayed=stage2, statistics=128),
        GroupRow("stem", 72, resized=72, decayed=72),
        GroupRow("stem_norm", 16, loaded=16, frozen=16, statistics=16, frozen_statistics=16),
    )
    assert sum(row.count for row in rows) == trees.count(network.params)


def test_without_weights_every_part_is_new():
    network = declare("vit/test", depth=2)
    nothing = frozen_masks(network, None, "stored")
    rows = group_rows(network, masks=nothing, decays=nothing["params"])
    assert [row.path for row in rows] == ["blocks/0", "blocks/1", "cls_token", "head", "norm", "patches", "pos_embed"]
    assert all(row.new == row.count for row in rows)


def test_a_list_inside_a_layer_has_one_row():
    network = declare("mlp/test", hidden=(8, 4))
    nothing = frozen_masks(network, None, "stored")
    rows = group_rows(network, masks=nothing, decays=nothing["params"])
    assert [(row.path, row.count) for row in rows] == [("head", 4 * 3 + 3), ("hidden", 3072 * 8 + 8 + 8 * 4 + 4)]
