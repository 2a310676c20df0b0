"""The rules of a first recipe; what they must give is worked out by hand."""

import numpy as np
import pytest

from cnn_vit.drafting import choosing
from cnn_vit.drafting.stopwatch import Pace


@pytest.mark.parametrize(
    ("image_sizes", "expected"),
    [
        ([(28, 28)] * 3, (28, 28)),  # as they are
        ([(48, 64)] * 3, (48, 64)),
        ([(3000, 4000)] * 3, (64, 64)),
        ([(48, 65)] * 3, (48, 48)),
        ([(30, 90), (100, 45), (47, 60)], (40, 40)),  # shorter sides 30, 45, 47: the middle one, in eights
        ([(5, 7), (5, 7)], (8, 8)),
        ([(2, 900), (3, 900)], (8, 8)),
    ],
)
def test_small_images_keep_their_size_and_others_become_squares(image_sizes, expected):
    assert choosing.choose_image_size(np.array(image_sizes)) == expected


@pytest.mark.parametrize(
    ("count", "devices", "batch"),
    [
        (1, 1, 8),
        (24, 1, 8),
        (127, 1, 8),
        (128, 1, 16),
        (300, 1, 32),
        (512, 1, 64),
        (10**6, 1, 64),
        (24, 3, 9),
        (24, 16, 16),
    ],
)
def test_an_epoch_has_eight_steps_at_least_where_the_batch_may_be_smaller(count, devices, batch):
    assert choosing.choose_batch_size(count, devices) == batch


@pytest.mark.parametrize(
    ("wanted_size", "expected", "patch"),
    [
        ((64, 64), (64, 64), 8),
        ((28, 28), (28, 28), 4),
        ((30, 30), (28, 28), 4),
        ((8, 8), (8, 8), 1),
        ((18, 18), (16, 16), 4),
        ((10, 10), (8, 8), 2),
        ((224, 224), (224, 224), 32),
        ((48, 64), (48, 64), 8),
        ((8, 64), (8, 64), 8),
    ],
)
def test_a_vit_gets_whole_patches_at_most_eight_a_side(wanted_size, expected, patch):
    image_size, keywords = choosing.choose_vit(wanted_size)
    assert (image_size, keywords["name"]) == (expected, f"vit/Ti{patch}-gap")
    # 4 is the patch of vit/test, which reads the same image size in a smoke run
    assert all(side % patch == 0 and side % 4 == 0 for side in image_size)


@pytest.mark.parametrize(("side", "stages"), [(64, 4), (48, 4), (47, 3), (24, 3), (23, 2), (8, 2)])
def test_a_cnn_has_as_many_stages_as_the_images_can_bear(side, stages):
    _, keywords = choosing.choose_cnn((side, side))
    assert len(keywords["filters"]) == stages


def test_letters_digits_and_hands_are_not_mirrored():
    assert choosing.choose_augmentation(("cats", "dogs"), (64, 48)) == ("pad_crop(6)", "flip")
    for classes in (("0", "1"), ("A", "b", "ß"), ("Left", "right", "none")):
        assert choosing.choose_augmentation(classes, (28, 28)) == ("pad_crop(3)",)
    assert choosing.choose_augmentation(("left", "other"), (8, 8)) == ("pad_crop(1)", "flip")


def test_ten_minutes_are_filled_with_steps_and_evaluations():
    pace = Pace(step=0.2, steps=9, evaluation=1.0, start=28.0)
    settings, steps, evaluations = choosing.choose_durations(2569, 64, pace, seconds=600)
    # 572 s are left, 22 of them for 20 evaluations and two at the end: 2,750 steps, 68 epochs of 40.14
    assert (settings["duration"], steps) == ("68 epochs", 2730)
    assert (settings["evaluate_every"], evaluations) == ("4 epochs", 17)
    assert (settings["schedule.warmup"], settings["checkpoint_every"]) == ("3 epochs", "13 epochs")
    assert settings["log_every"] == "27 steps"
    assert 28 + steps * 0.2 + (evaluations + 2) * 1.0 <= 600


def test_few_images_get_three_hundred_epochs_and_many_get_steps():
    quick = Pace(step=0.01, steps=9, evaluation=0.0, start=1.0)
    few = choosing.choose_durations(24, 8, quick, seconds=600)
    assert (few.settings["duration"], few.steps) == ("300 epochs", 900)
    many = choosing.choose_durations(1_000_000, 64, quick, seconds=600)
    assert (many.settings["duration"], many.steps) == ("59900 steps", 59900)
    assert (many.settings["evaluate_every"], many.evaluations) == ("2995 steps", 20)
    slower = Pace(step=0.125, steps=9, evaluation=1.0, start=0.0)
    durations = choosing.choose_durations(1_000_000, 64, slower, seconds=600)
    assert (durations.steps, durations.evaluations) == (4624, 20)  # 22 s of the 600 are not for steps


def test_evaluations_take_a_tenth_at_most_and_a_run_has_a_step_however_slow():
    slow = Pace(step=1.0, steps=3, evaluation=10.0, start=0.0)
    _, steps, evaluations = choosing.choose_durations(10_000, 64, slow, seconds=600)
    assert (steps, evaluations) == (540, 4)  # 60 s: 6 evaluations, two of them at the end
    assert (evaluations + 2) * 10 + steps * 1.0 <= 600
    slowest = Pace(step=5000.0, steps=3, evaluation=900.0, start=50.0)
    durations = choosing.choose_durations(10_000, 64, slowest, seconds=600)
    assert (durations.steps, durations.evaluations) == (1, 1)
    slow_to_compile = Pace(step=1.0, steps=3, evaluation=0.0, start=5000.0)
    assert choosing.choose_durations(10_000, 64, slow_to_compile, seconds=600).steps == 300  # half, at least
