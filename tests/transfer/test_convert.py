"""Foreign files: what is recognized, what is refused and with which words, and what the card says afterwards."""

import numpy as np
import pytest
from converted import as_named, compile_scores, find_rule, normalize, write_npz
from parity_values import make_values, read_reference

from cnn_vit.errors import UserError
from cnn_vit.transfer import rules, weights
from cnn_vit.transfer.convert import convert, convert_arrays, convert_file, open_weights
from cnn_vit.transfer.source_facts import SourceFacts, reverse_colors, reverse_first_colors

RESNET = read_reference("cifar_resnet")  # 8 layers, 10 classes
VIT = read_reference("vit")


@pytest.fixture
def resnet():
    """The arrays of a ResNet-8 under akamaster's names; a test may change them."""
    return {name: value for name, value in make_values(RESNET.shapes).items() if value.ndim}


@pytest.fixture(scope="module")
def vit():
    """The arrays of a small ViT under vit-pytorch's names."""
    return make_values(VIT.shapes)


def refuse(arrays, sentence, **options) -> UserError:
    """Checks that arrays are refused in one sentence, and returns the error."""
    with pytest.raises(UserError, match=sentence) as caught:
        convert_arrays("net.npz", as_named(arrays), **options)
    assert "\n" not in str(caught.value)
    return caught.value


# Recognizing ----------------------------------------------------------------------------------------------------------


def test_names_and_shapes_tell_the_network_and_the_answer_says_why(resnet):
    conversion = convert_arrays("net.npz", as_named(resnet))
    card = conversion.weights.card
    assert (card.model, card.keywords, card.num_classes) == ("cifar_resnet/8", {}, 10)
    assert conversion.source == "PyTorch, akamaster/pytorch_resnet_cifar10"
    assert "1 blocks in layer1 of two convolutions: 8 layers" in conversion.reasons
    assert "no array in the shortcuts: option A" in conversion.reasons
    groups = {group.ours: (group.theirs, group.arrays, group.numbers) for group in conversion.groups}
    assert groups["stem"] == ("conv1.weight", 1, 3 * 3 * 3 * 16)
    assert groups["head"] == ("linear.*", 2, 64 * 10 + 10)
    assert groups["stages/1"][0] == "layer2.0.*"


def test_other_widths_and_depths_become_keywords(resnet):
    for name in [name for name in resnet if name.startswith("layer3")]:
        resnet[name.replace("layer3.0", "layer3.1")] = resnet[name]
    resnet["layer3.1.conv1.weight"] = np.zeros((64, 64, 3, 3), np.float32)
    error = refuse(resnet, "does not fit cifar_resnet/8 of 10 classes")
    assert "layer3.1.conv1.weight (64, 64, 3, 3) is not known" in " ".join([str(error), *error.details])
    assert rules.name_variant("cifar_resnet", {"blocks": 4, "filters": 32}, otherwise="20") == (
        "cifar_resnet/20",
        {"blocks": 4, "filters": 32},
    )


def test_a_name_can_say_more_than_shapes(resnet):
    card = convert_arrays("net.npz", as_named(resnet), model="cifar_resnet/20", keywords={"blocks": 1}).weights.card
    assert (card.model, card.keywords) == ("cifar_resnet/20", {"blocks": 1})


@pytest.mark.parametrize("prefix", ["module.", "state_dict.module.", "model."])
def test_what_programs_wrap_a_network_in_is_taken_off(resnet, prefix):
    plain = convert_arrays("net.npz", as_named(resnet)).weights
    wrapped = convert_arrays("net.npz", as_named({prefix + name: array for name, array in resnet.items()})).weights
    assert wrapped.digest == plain.digest


def test_a_prefix_that_no_program_of_the_rule_writes_is_refused(resnet):
    error = refuse({f"backbone.{name}": array for name, array in resnet.items()}, "begin with 'backbone.'")
    assert "without a prefix, or with 'module.'" in str(error)


def test_two_networks_in_a_file_are_refused(resnet):
    both = resnet | {f"module.{name}": array for name, array in resnet.items()}
    refuse(both, "holds several networks, under no prefix, module.")


def test_names_that_no_rule_knows_are_refused_with_what_there_is():
    error = refuse({"a.weight": np.zeros(3), "b.weight": np.zeros(3)}, "no rule knows the 2 names in net.npz")
    assert all(family in str(error) for family in rules.families())


def test_another_family_is_named(resnet):
    refuse(resnet, "those of cifar_resnet .*, not of mobilenet_v1/0.25", model="mobilenet_v1/0.25")
    refuse(resnet, "no rule converts weights of lenet; there are rules for cifar_resnet", model="lenet/5")
    refuse(resnet, "cifar_resnet has no '21'", model="cifar_resnet/21")


def test_what_no_shape_tells_is_asked_for_with_choices(vit):
    error = refuse(vit, "does not tell all of its network")
    assert "--model.activation= one of gelu, relu, gelu_tanh" in str(error)
    assert "--model.heads= one of 1, 2, 3, 4, 6, 8, 12, 16, 24, 48" in str(error)  # the divisors of 48
    card = convert_arrays("net.npz", as_named(vit), keywords=VIT.keywords).weights.card
    assert (card.keywords["head_width"], card.preprocessing["image_size"]) == (16, [16, 16])


def test_a_name_tells_the_heads_but_not_the_activation(vit):
    sizes = {"width": 32, "depth": 2, "hidden": 48, "head_width": 16}  # Ti has 3 heads, as this network does
    error = refuse(vit, "--model.activation= one of gelu, relu, gelu_tanh$", model="vit/Ti4", keywords=sizes)
    assert "heads" not in str(error)
    card = convert_arrays(
        "net.npz", as_named(vit), model="vit/Ti4", keywords=sizes | {"activation": "relu"}
    ).weights.card
    assert card.model == "vit/Ti4"


def test_a_keyword_that_does_not_fit_is_refused(vit):
    refuse(vit, "--model.activation= one of gelu, relu, gelu_tanh", keywords={"heads": 3, "activation": "swish"})
    refuse(vit, "no keyword of vit/Ti4 'head'", keywords={"heads": 3, "activation": "relu", "head": 1})
    refuse(vit, "--model.heads= one of 1, 2, 3", keywords={"heads": 5, "activation": "relu"})
    sizes = {"width": 32, "depth": 2, "hidden": 48, "head_width": 8, "activation": "relu"}
    refuse(vit, r"to_qkv.weight has the shape \(144, 32\), expected \(72, 32\)", model="vit/Ti4", keywords=sizes)


@pytest.mark.parametrize(
    ("heads", "sentence"),
    [
        ("abc", "model.heads='abc' is not a whole number"),
        ((2,), r"model.heads=\(2,\) is not a whole number"),
        (float("inf"), "model.heads=inf is not a whole number"),
        (True, "model.heads=True is not a whole number"),
        (0, "--model.heads= one of 1, 2, 3"),
    ],
)
def test_a_keyword_of_another_type_is_refused_before_it_is_computed_with(vit, heads, sentence):
    refuse(vit, sentence, keywords={"heads": heads, "activation": "relu"})
    timm = read_reference("vit_timm")
    sentence = "model.heads=0 must be at least 1" if heads == 0 else sentence
    refuse(make_values(timm.shapes), sentence, keywords={"heads": heads})
    refuse(make_values(timm.shapes), "is not a finite number", keywords={"heads": 4, "epsilon": 10**400})


def test_a_table_of_no_positions_is_said(vit):
    deit = make_values(read_reference("deit").shapes)
    tables = ((vit, "pos_embedding", {"heads": 3, "activation": "relu"}), (deit, "pos_embed", {"heads": 4}))
    for arrays, name, keywords in tables:
        changed = arrays | {name: arrays[name][:, :0]}
        refuse(
            changed,
            rf"not the arrays and shapes that tell its network.* {name} has the shape \(1, 0",
            keywords=keywords,
        )


# What does not fit ----------------------------------------------------------------------------------------------------


def test_all_that_does_not_fit_is_listed_at_once_with_nearest_names(resnet):
    resnet["layer1.0.conv2.wieght"] = resnet.pop("layer1.0.conv2.weight")
    del resnet["linear.bias"]
    resnet["layer2.0.bn1.weight"] = np.ones(16, np.float32)
    resnet["layer2.0.conv2.weight"] = np.zeros((3, 3, 32, 32), np.float32)  # as many numbers, other axes
    resnet["layer3.0.bn1.bias"] = np.zeros(64, np.int8)
    resnet["layer3.0.bn2.bias"] = np.where(np.arange(64) == 5, np.nan, 0).astype(np.float32)
    resnet["layer3.0.bn2.running_var"] = np.full(64, -1, np.float32)
    resnet["layer3.0.bn2.running_mean"] = np.zeros((0,), np.float32)
    error = refuse(resnet, "net.npz does not fit cifar_resnet/8 of 10 classes and 32x32 pixels")
    assert set(error.details) == {
        "layer1.0.conv2.weight (16, 16, 3, 3) is missing (is it layer1.0.conv2.wieght?)",
        "linear.bias (10,) is missing",
        "layer1.0.conv2.wieght (16, 16, 3, 3) is not known (is it layer1.0.conv2.weight?)",
        "layer2.0.bn1.weight has the shape (16,), expected (32,)",
        "layer2.0.conv2.weight has the shape (3, 3, 32, 32), expected (32, 32, 3, 3)",
        "layer3.0.bn1.bias is int8; weights are floating point numbers of 16, 32 or 64 bits",
        "layer3.0.bn2.bias has 1 of 64 numbers that are not finite in float32",
        "layer3.0.bn2.running_var has a variance below 0",
        "layer3.0.bn2.running_mean has the shape (0,), expected (64,)",
    }
    assert str(error).endswith("and 6 more")


@pytest.mark.parametrize(
    ("model", "keywords", "for_training", "remedy"),
    [
        ("cifar_resnet/20", {}, False, "give --model=cifar_resnet/8"),
        ("cifar_resnet/20", {}, True, "set model.name=cifar_resnet/8"),
        ("cifar_resnet/8", {"filters": 4}, False, "leave out --model.filters"),
        ("cifar_resnet/20", {"filters": 4}, True, "set model.name=cifar_resnet/8, and leave out model.filters"),
        (None, {"shortcut": "projection"}, False, "leave out --model.shortcut"),
    ],
)
def test_who_asks_for_another_network_hears_which_it_is_and_how_to_ask(resnet, model, keywords, for_training, remedy):
    sentence = rf"net.npz holds cifar_resnet/8, as its shapes tell, and not cifar_resnet/.*; {remedy}$"
    error = refuse(resnet, sentence, model=model, keywords=keywords, for_training=for_training)
    assert not error.details


def test_what_the_shapes_tell_is_not_proposed_where_it_does_not_fit_either(resnet):
    del resnet["linear.bias"]
    error = refuse(resnet, "does not fit cifar_resnet/20 of 10 classes", model="cifar_resnet/20")
    assert "linear.bias (10,) is missing" in error.details


def test_keywords_that_only_the_user_knows_are_not_blamed(vit):
    """The heads and the activation leave no trace in the shapes, the share of dropout has none."""
    said = {"heads": 3, "activation": "relu", "dropout": 0.1, "depth": 5}
    error = refuse(vit, "as its shapes tell", model="vit/Ti4", keywords=said, for_training=True)
    missing = "model.width=32, model.depth=2, model.hidden=48, model.head_width=16"
    assert str(error).endswith(f"; set {missing}")
    missing_keywords = {"width": 32, "depth": 2, "hidden": 48, "head_width": 16}
    convert_arrays("net.npz", as_named(vit), model="vit/Ti4", keywords=said | missing_keywords)


def test_a_few_faults_stand_in_the_sentence(resnet):
    resnet["aux.weight"] = np.zeros((2, 2), np.float32)
    error = refuse(resnet, r": aux.weight \(2, 2\) is not known$")
    assert error.details == ()


def test_a_missing_sign_is_named(resnet):
    resnet["linear.wight"] = resnet.pop("linear.weight")
    error = refuse(resnet, "not the arrays and shapes that tell its network")
    assert "linear.weight is missing (is it linear.wight?)" in " ".join([str(error), *error.details])


def test_arrays_beside_the_prefix_are_left_over(resnet):
    wrapped = {f"module.{name}": array for name, array in resnet.items()}
    refuse(wrapped | {"epoch": np.zeros(3, np.float32)}, "epoch does not begin with module. as others do")


def test_many_faults_are_cut_and_long_names_compared_with_none(resnet):
    resnet |= {f"{'x' * 400}{number}": np.zeros(1, np.float32) for number in range(500)}
    error = refuse(resnet, "does not fit")
    assert len(error.details) == 101
    assert error.details[-1] == "and 400 more"


def test_names_do_nothing_to_a_terminal(resnet):
    refuse(resnet | {"a\x1b[31m": np.zeros(1, np.float32)}, r"a\\x1b\[31m")


def test_counters_are_dropped_and_scalars_named(resnet):
    counters = {name: np.array([7]) for name in RESNET.shapes if name.endswith("num_batches_tracked")}
    named = as_named(resnet | counters, skipped={"best_prec1": "a scalar"})
    conversion = convert_arrays("net.npz", named)
    assert conversion.weights.digest == convert_arrays("net.npz", as_named(resnet)).weights.digest
    assert "dropped, since no score depends on them: num_batches_tracked (7)" in conversion.notes
    assert "left out, for no network is made of them: best_prec1 (a scalar)" in conversion.notes


def test_what_an_optimizer_kept_is_dropped(resnet):
    wrapped = {f"state_dict.{name}": array for name, array in resnet.items()}
    wrapped["optimizer.state.0.momentum_buffer"] = np.zeros((16, 3, 3, 3), np.float32)
    conversion = convert_arrays("net.npz", as_named(wrapped))
    assert "dropped, since no score depends on them: momentum_buffer (1)" in conversion.notes
    assert conversion.weights.digest == convert_arrays("net.npz", as_named(resnet)).weights.digest


def test_other_widths_of_floating_point_become_float32_and_that_is_said(resnet):
    exact = convert_arrays("net.npz", as_named(resnet)).weights  # multiples of 2^-15, exact in float16 but for kernels
    for dtype, verb in ((np.float64, "rounded"), (np.float16, "widened")):
        changed = {name: array.astype(dtype) if array.ndim == 1 else array for name, array in resnet.items()}
        conversion = convert_arrays("net.npz", as_named(changed))
        count = sum(array.ndim == 1 for array in resnet.values())
        assert f"{count} arrays of {np.dtype(dtype)} were {verb} to float32" in conversion.notes
        if dtype is np.float64:
            assert conversion.weights.digest == exact.digest
    large = resnet | {"linear.bias": np.full(10, 1e300)}
    refuse(large, "linear.bias has 10 of 10 numbers that are not finite in float32")


# The card -------------------------------------------------------------------------------------------------------------


def test_value_range_and_channel_order_are_folded(resnet):
    """Caffe's way: blue, green, red in 0..255, less a mean. The card and the first kernel then take RGB in 0..1."""
    facts = SourceFacts(
        mean=(104.0, 117.0, 124.0), std=(50.0, 60.0, 70.0), value_range=(0.0, 255.0), channel_order="BGR"
    )
    plain = convert_arrays("net.npz", as_named(resnet)).weights
    folded = convert_arrays("net.npz", as_named(resnet), facts=facts).weights
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    seen_by_the_source = (pixels[..., ::-1] - np.float32(facts.mean)) / np.float32(facts.std)
    compiled = compile_scores(weights.network_of(plain.card), convolutional=True)
    expected = compiled(plain.params, plain.stats, seen_by_the_source)
    scores = compiled(folded.params, folded.stats, normalize(pixels, folded.card.preprocessing))
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert np.std(np.asarray(expected)) > 0.1
    assert folded.card.preprocessing["mean"] == [124 / 255, 117 / 255, 104 / 255]
    assert folded.card.origin["channel_order"] == "BGR"


def test_norms_of_patches_see_the_colors_in_their_order_too():
    """Each number of a patch, its colors last, has a scale and a bias of its own (Dual PatchNorm)."""
    rng = np.random.default_rng(0)
    arrays = {"patches/kernel": rng.normal(size=(2, 2, 3, 5))}
    arrays |= {f"patches/norm/{name}": rng.normal(size=12) for name in ("scale", "bias")}
    blue_first = rng.normal(size=(2, 2, 3))

    def project(patch):
        normal = (patch - patch.mean()) / patch.std()
        pixels = normal.reshape(-1) * arrays["patches/norm/scale"] + arrays["patches/norm/bias"]
        return pixels @ arrays["patches/kernel"].reshape(12, 5)

    expected = project(blue_first)
    reverse_first_colors(arrays, "patches/kernel", channels=3)
    np.testing.assert_allclose(project(blue_first[..., ::-1]), expected)


def test_a_value_range_alone_is_a_mean_and_a_width(resnet):
    """-1 to 1 without mean and std: 2 x - 1 = (x - 0.5) / 0.5."""
    card = convert_arrays("net.npz", as_named(resnet), facts=SourceFacts(value_range=(-1.0, 1.0))).weights.card
    assert (card.preprocessing["mean"], card.preprocessing["std"]) == ([0.5] * 3, [0.5] * 3)


def test_what_the_user_says_replaces_what_the_rule_says(resnet):
    facts = SourceFacts(image_size=(48, 40), fit="stretch", classes=tuple("abcdefghij"), licence="CC0-1.0")
    conversion = convert_arrays("net.npz", as_named(resnet), facts=facts)
    card = conversion.weights.card
    assert card.preprocessing["image_size"] == [48, 40]
    assert card.preprocessing["fit"] == "stretch"
    assert card.preprocessing["mean"] == [0.485, 0.456, 0.406]
    assert card.classes == facts.classes
    assert card.origin["licence"] == "CC0-1.0"
    assert not any("CIFAR-10" in note for note in conversion.notes)


def test_what_is_assumed_is_said(resnet, vit):
    notes = " ".join(convert_arrays("net.npz", as_named(resnet)).notes)
    assert "10 scores are taken for the classes of CIFAR-10; --class_names=FILE says otherwise" in notes
    assert "how images are prepared is taken from PyTorch, akamaster" in notes
    conversion = convert_arrays("net.npz", as_named(vit), keywords=VIT.keywords)
    assert "mean" not in conversion.weights.card.preprocessing
    assert conversion.weights.card.classes is None
    assert any("mean and standard deviation are not known" in note for note in conversion.notes)
    assert any("nobody says what the classes are called" in note for note in conversion.notes)


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (SourceFacts(mean=(0.5,) * 3), "--mean and --std belong together"),
        (SourceFacts(mean=(0.5,), std=(0.5,)), "--mean has 1 and --std 1 numbers, and this network sees 3 channels"),
        (SourceFacts(mean=(0.5,) * 3, std=(0.5, 0.0, 0.5)), "--std=0.5,0.0,0.5 must be above 0"),
        (SourceFacts(value_range=(1.0, 1.0)), "--value_range=1,1 must rise"),
        (SourceFacts(channel_order="BGR"), "also orders mean and standard deviation"),
        (SourceFacts(classes=("a", "b")), "--class_names has 2 names, and the network gives 10 scores"),
    ],
)
def test_contradictions_are_refused(resnet, facts, sentence):
    refuse(resnet, sentence, facts=facts)


def test_gray_networks_have_no_channel_order(vit):
    refuse(
        vit,
        "orders three channels, and this network sees 1",
        facts=SourceFacts(channel_order="BGR"),
        keywords=VIT.keywords,
    )


def test_flattened_pixels_have_no_channel_order():
    with pytest.raises(UserError, match="sees flattened pixels"):
        reverse_colors(np.zeros((12, 2), np.float32), channels=3)


def test_a_published_file_is_known_by_its_content(vit):
    """The sha256 of the ViT for MNIST, with which come heads, activation, classes, mean and licence."""
    (published,) = find_rule("vit").published
    conversion = convert_arrays("any.pt", as_named(vit, sha256=published.sha256), keywords={"heads": 3})
    card = conversion.weights.card
    assert card.keywords["activation"] == "relu"
    assert card.classes == tuple("0123456789")
    assert card.origin["trained_on"] == ["MNIST"]
    assert card.preprocessing["mean"] == [0.1307]
    assert conversion.reasons[0].startswith("its sha256 is that of vit_mnist_d64_l6_h4_p4.pt")


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_foreign_file_is_opened_as_its_converted_one(tmp_path, resnet):
    source = write_npz(tmp_path / "net.npz", resnet)
    converted = convert(source)
    assert converted.card.origin["file"] == "net.npz"
    weights.save(tmp_path / "net.safetensors", converted)
    opened = open_weights(tmp_path / "net.safetensors")
    assert opened.digest == open_weights(source).digest == converted.digest
    assert opened.card == converted.card
    assert open_weights(tmp_path / "net.safetensors", model="cifar_resnet/8").card == converted.card


def test_our_own_file_says_itself_which_network_it_is(tmp_path, resnet):
    path = tmp_path / "net.safetensors"
    weights.save(path, convert_arrays("net.npz", as_named(resnet)).weights)
    with pytest.raises(UserError, match="holds cifar_resnet/8, not cifar_resnet/20"):
        open_weights(path, model="cifar_resnet/20")
    with pytest.raises(UserError, match=r"was made with model\.blocks = the model's own, not 3"):
        open_weights(path, keywords={"blocks": 3})
    with pytest.raises(UserError, match="is a file of cnn_vit already"):
        convert_file(path)


def test_a_network_that_takes_a_part_still_opens_the_whole_file(tmp_path, resnet):
    source = write_npz(tmp_path / "net.npz", resnet)
    opened = open_weights(source, model="cifar_resnet/8", keywords={"cut": "stages/0"}, for_training=True)
    assert opened.card.keywords == {}
    assert opened.digest == open_weights(source).digest


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        open_weights(tmp_path / "net.npz")
