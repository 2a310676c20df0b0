"""The check of a learner's file: right functions pass, and each known mistake is told by its own sentence.

Whatever else a function may do is a sentence too.
"""

import re

import numpy as np
import pytest
from solutions import BODIES, PLANTED, fill

from cnn_vit.errors import UserError
from cnn_vit.studies.homework import diagnosis
from cnn_vit.studies.homework.exercises import OUTPUTS, choose_exercises, load_exercise
from cnn_vit.studies.homework.grading import NOT_RUN, NOT_WRITTEN, RIGHT, WRONG, check_file
from cnn_vit.studies.homework.mistakes import MISTAKES
from cnn_vit.studies.homework.running import Limits
from cnn_vit.studies.homework.skeleton import write_skeleton

SKELETON = write_skeleton("cnn-vit backprop check homework.py")


def grades_of(path, text, **options):
    """The grades of a file by function."""
    path.write_text(text)
    return {grade.name: grade for grade in check_file(str(path), **options).functions}


def sentences_of(grade):
    """All that is said of a function."""
    return " | ".join(remark.sentence for remark in grade.remarks)


# Right and not written ------------------------------------------------------------------------------------------------


def test_a_skeleton_that_is_filled_right_passes(tmp_path):
    assert BODIES.keys() == OUTPUTS.keys()
    grades = grades_of(tmp_path / "homework.py", fill(SKELETON))
    assert list(grades) == list(OUTPUTS)
    assert {name: sentences_of(grade) for name, grade in grades.items() if grade.state != RIGHT} == {}
    assert all(grade.right_cases == grade.cases > 2 for grade in grades.values())


def test_an_empty_skeleton_is_not_written_yet_and_says_how_to_check(tmp_path):
    assert "cnn-vit backprop check homework.py --only=conv" in SKELETON
    assert SKELETON.count("raise NotImplementedError\n") == len(OUTPUTS) == SKELETON.count("\ndef ")
    assert max(map(len, SKELETON.splitlines())) <= 120
    assert all(word in SKELETON for word in ("dL/dx = g [x > 0]", "Shapes: x (B, D), w (D, K), g (B, K)"))
    grades = grades_of(tmp_path / "homework.py", SKELETON)
    assert {grade.state for grade in grades.values()} == {NOT_WRITTEN}


# Mistakes -------------------------------------------------------------------------------------------------------------


def rounds():
    """The planted mistakes in rounds of at most one for each function."""
    left = list(PLANTED)
    while left:
        one_each = {}
        for planted in left:
            one_each.setdefault(planted.function, planted)
        left = [planted for planted in left if planted not in one_each.values()]
        yield tuple(one_each.values())


ROUNDS = list(rounds())


@pytest.mark.parametrize("number", range(len(ROUNDS)))
def test_planted_mistakes_are_recognized_and_the_other_functions_pass(tmp_path, number):
    planted = {mistake.function: mistake for mistake in ROUNDS[number]}
    grades = grades_of(tmp_path / "homework.py", fill(SKELETON, ROUNDS[number]))
    for name, grade in grades.items():
        if name not in planted:
            assert grade.state == RIGHT, sentences_of(grade)
            continue
        mistake = planted[name]
        named = [(remark.output, remark.mistake) for remark in grade.remarks]
        assert grade.state == WRONG
        assert (mistake.output, mistake.mistake) in named, (name, named)
        assert mistake.words in sentences_of(grade)


def test_each_kind_of_mistake_has_its_own_sentences():
    """Several ways of one mistake may share a sentence; two mistakes of an output never do."""
    assert len(PLANTED) >= 12
    for name, mistakes in MISTAKES.items():
        kinds = {}
        for mistake in mistakes:
            assert mistake.output in OUTPUTS[name]
            kinds.setdefault((mistake.output, mistake.message), set()).add(mistake.name)
        assert [pair for pair, names in kinds.items() if len(names) > 1] == []
    assert len({(name, mistake.name) for name, mistakes in MISTAKES.items() for mistake in mistakes}) > 150


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_a_mistake_gives_is_called_by_its_name(name):
    exercise = load_exercise(name)
    for mistake in MISTAKES[name]:
        values = diagnosis.compute_mistake(name, mistake)
        output = exercise.outputs.index(mistake.output)
        findings = diagnosis.diagnose(exercise, output, values)
        assert [finding.mistake for finding in findings] == [mistake.name], (mistake.message, findings)


@pytest.mark.parametrize("name", OUTPUTS)
def test_right_answers_have_no_findings_and_those_of_other_cases_have(name):
    exercise = load_exercise(name)
    for output in range(len(exercise.outputs)):
        right = [arrays[output] for arrays in exercise.right]
        assert diagnosis.diagnose(exercise, output, right) == ()
        assert diagnosis.diagnose(exercise, output, [array + 1e-12 for array in right]) == ()
        changed = [right[0] + 0.3, *right[1:]]
        (finding,) = diagnosis.diagnose(exercise, output, changed)
        assert exercise.cases[0].name in finding.cases


def test_two_mistakes_at_once_are_both_told(tmp_path):
    text = fill(SKELETON).replace(
        "p = surround(x, padding)\n    U, V, I, O = w.shape\n    Y =",
        "p, stride = x, 1\n    U, V, I, O = w.shape\n    Y =",
    )
    grade = grades_of(tmp_path / "homework.py", text, only="conv_forward")["conv_forward"]
    assert {remark.mistake for remark in grade.remarks} == {"padding forgotten", "stride forgotten"}
    by_mistake = {remark.mistake: remark.cases for remark in grade.remarks}
    assert by_mistake["padding forgotten"] == ("padding of 1", "unequal padding")
    assert by_mistake["stride forgotten"][0] == "stride 2"


def test_results_that_are_right_in_each_others_place_are_called_exchanged(tmp_path):
    text = """
from cnn_vit.analysis import backprop

def batch_norm_backward(x, gamma, g, epsilon):
    dx, dgamma, dbeta = backprop.batch_norm_backward(x, gamma, g, epsilon)
    return dx, dbeta, dgamma
"""
    (grade,) = grades_of(tmp_path / "a.py", text, only="batch_norm_backward").values()
    (remark,) = grade.remarks
    assert grade.state == WRONG
    assert remark.mistake == "outputs exchanged"
    assert remark.sentence.startswith("dL/dgamma and dL/dbeta are exchanged: both are right")
    assert remark.sentence.endswith("return dL/dx, dL/dgamma, dL/dbeta")


def test_a_dense_layer_of_products_number_by_number_is_told_what_a_matrix_product_is(tmp_path):
    text = "def dense_forward(x, w, b):\n    return x * w + b\n"
    (grade,) = grades_of(tmp_path / "a.py", text, only="dense_forward").values()
    assert "product number by number" in {remark.mistake for remark in grade.remarks}
    assert "gradient" not in sentences_of(grade)


def test_a_hint_is_of_the_direction_of_its_function():
    """Forward there is no gradient to look at, and behind a norm not every fault is one of the axes."""
    for name in OUTPUTS:
        hints = [case.hint for case in load_exercise(name).cases]
        if name.endswith("_forward"):
            assert not [hint for hint in hints if "gradient" in hint or re.search(r"\bg\b", hint)], name
        else:
            assert "compare the axes of the means with the docstring" not in hints
    assert "add up their gradients" in load_exercise("dense_backward").cases[1].hint


def test_functions_of_the_package_itself_are_no_homework(tmp_path):
    grades = grades_of(tmp_path / "a.py", "from cnn_vit.analysis.backprop import *\n")
    assert {grade.state for grade in grades.values()} == {NOT_WRITTEN}
    assert "it is a function of cnn_vit, imported" in sentences_of(grades["relu_forward"])


# What else a function may do ------------------------------------------------------------------------------------------

ODD = """
import sys
import numpy as np

def relu_forward(x):
    print("looking at", x.shape)
    return x / 0

def relu_backward(x, g):
    x[x < 0] = 0
    return g * (x > 0)

def dense_forward(x, w, b):
    return [[0.0]]

def dense_backward(x, w, g):
    return g @ w.T, None, g.sum(0)

def conv_forward(x, w, b, stride, padding, dilation, groups):
    return np.zeros((7, 7)) if stride == 2 else missing_name

def conv_backward(x, w, g, stride, padding, dilation, groups):
    return x

def max_pool_forward(x, size, stride, padding):
    return np.full(x.shape, np.nan)

def max_pool_backward(x, g, size, stride, padding):
    sys.exit(3)

def average_pool_forward(x, size, stride, padding, counts_padding):
    return np.ones(2 ** 40)

def average_pool_backward(x, g):
    return g

def softmax_cross_entropy_forward(scores, labels, smoothing):
    pass

def softmax_cross_entropy_backward(scores, labels, smoothing):
    return np.zeros(scores.shape)

def batch_norm_forward(x, gamma, beta, epsilon):
    m, v = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (gamma * (x - m) / np.sqrt(v + epsilon) + beta).astype(np.float32)

def batch_norm_backward(x, gamma, g, epsilon):
    raise NotImplementedError

def layer_norm_forward(x, gamma, beta, epsilon):
    return "y"

def layernorm_backward(x, gamma, g, epsilon):
    return 0

def attention_forward(q, k, v):
    import os
    os._exit(5)

attention_backward = 7
"""
SENTENCES = {
    "relu_forward": (WRONG, "are nan or infinite"),
    "relu_backward": (WRONG, "changes x, which it was given"),
    "dense_forward": (WRONG, "it is of type list; it has to be a NumPy array"),
    "dense_backward": (NOT_WRITTEN, "None, not written yet"),
    "conv_forward": (
        WRONG,
        "NameError: name 'missing_name' is not defined (line 20: return np.zeros((7, 7)) if stride == 2 else missing",
    ),
    "conv_backward": (WRONG, "returns one thing; it has to be a tuple of 3: dL/dx, dL/dw, dL/db"),
    "max_pool_forward": (WRONG, "its shape is (1, 4, 4, 1) where it has to be (1, 2, 2, 1), with one image"),
    "max_pool_backward": (WRONG, "SystemExit: a function returns its result and does not exit"),
    "average_pool_forward": (WRONG, "MemoryError: more memory than there is for it"),
    "average_pool_backward": (WRONG, "takes 2 positional arguments but 6 were given"),
    "softmax_cross_entropy_forward": (WRONG, "returns None with one example; is `return` missing?"),
    "softmax_cross_entropy_backward": (WRONG, "all numbers are 0"),
    "batch_norm_forward": (WRONG, "float32, or a rounded constant?"),
    "batch_norm_backward": (NOT_WRITTEN, ""),
    "layer_norm_forward": (WRONG, "it is of type str"),
    "layer_norm_backward": (NOT_WRITTEN, "there is layernorm_backward, did you rename it?"),
    "attention_forward": (WRONG, "ended the process with exit code 5"),
    "attention_backward": (WRONG, "TypeError: 'int' object is not callable"),
}


def test_whatever_a_function_does_is_a_sentence(tmp_path):
    grades = grades_of(tmp_path / "homework.py", ODD)
    assert grades.keys() == SENTENCES.keys()
    for name, (state, words) in SENTENCES.items():
        assert (grades[name].state, words in sentences_of(grades[name])) == (state, True), (
            name, grades[name].state, sentences_of(grades[name]),
        )  # fmt: skip
    assert "its shape is (7, 7)" in sentences_of(grades["conv_forward"])
    assert grades["relu_forward"].printed.startswith("looking at (2, 5)\n")


def test_a_function_without_an_end_is_stopped_and_the_others_are_graded(tmp_path):
    text = SKELETON.replace("def relu_forward(x):", "def relu_forward(x):\n    while True:\n        pass\n")
    text = text.replace("def dense_forward(x, w, b):", "def dense_forward(x, w, b):\n    input()\n")
    grades = grades_of(tmp_path / "homework.py", text, limits=Limits(seconds=1))
    assert "did not end within 1 CPU-seconds" in sentences_of(grades["relu_forward"])
    assert "EOFError" in sentences_of(grades["dense_forward"])
    assert grades["conv_forward"].state == NOT_WRITTEN


def test_a_function_that_waits_is_stopped(tmp_path):
    text = "import time\n\ndef relu_forward(x):\n    time.sleep(99)\n"
    (grade,) = grades_of(tmp_path / "a.py", text, only="relu_forward", limits=Limits(wall_seconds=1)).values()
    assert "did not end within 1 seconds; it waits" in sentences_of(grade)


def test_after_three_deaths_the_rest_is_left_out(tmp_path):
    text = re.sub(r"raise NotImplementedError\n", "import os; os.abort()\n", SKELETON, count=3)
    grades = grades_of(tmp_path / "homework.py", text)
    assert "crashed Python itself (signal SIGABRT)" in sentences_of(grades["relu_forward"])
    assert grades["dense_backward"].state == NOT_RUN
    assert "3 functions before did not come to an end" in sentences_of(grades["dense_backward"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def f(:\n", "is not Python: line 1, "),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module' (line 1: import no_such"),
        (
            "import sys\nsys.exit()\n",
            "SystemExit: a function returns its result and does not exit (line 2: sys.exit())",
        ),
        ("import os\nos._exit(4)\n", "it ended the process with exit code 4"),
        ("a\0b", "is not Python: "),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_is_one_sentence(tmp_path, text, words):
    path = tmp_path / "homework.py"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(words)):
        check_file(str(path), only="relu_forward")


def test_other_files_are_refused_before_anything_is_run(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*; `cnn-vit backprop start .*` writes a file"):
        check_file(str(tmp_path / "none.py"))
    with pytest.raises(UserError, match="is not a Python file"):
        check_file(str(tmp_path))
    with pytest.raises(UserError, match="did you mean relu_forward"):
        check_file(str(tmp_path / "none.py"), only="relu_forwrd")


def test_modules_beside_the_file_are_its_own_but_none_takes_the_place_of_pythons(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('not Python's')\n")
    (tmp_path / "mine.py").write_text("def mask(x):\n    return x > 0\n")
    text = "import colorsys\nimport mine\n\ndef relu_backward(x, g):\n    return g * mine.mask(x)\n"
    assert grades_of(tmp_path / "homework.py", text, only="relu_backward")["relu_backward"].state == RIGHT
    assert not list(tmp_path.glob("__pycache__"))


def test_layers_and_functions_are_chosen_by_name():
    assert choose_exercises(None) == list(OUTPUTS)
    assert choose_exercises("conv") == ["conv_forward", "conv_backward"]
    assert choose_exercises("attention_backward") == ["attention_backward"]


def test_cases_are_the_same_each_time_and_their_arrays_are_float64():
    for name in OUTPUTS:
        load_exercise.cache_clear()
        first, second = load_exercise(name), load_exercise.__wrapped__(name)
        for one_case, same_case in zip(first.cases, second.cases, strict=True):
            for key, value in one_case.inputs.items():
                np.testing.assert_array_equal(value, same_case.inputs[key])
                assert not isinstance(value, np.ndarray) or value.dtype in (np.float64, np.int64)
        assert len({case.name for case in first.cases}) == len(first.cases)
