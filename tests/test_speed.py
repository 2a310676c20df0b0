"""experiments/speed/train.py: arms compute the same, noisy windows do not count, the table says what was timed."""

import signal
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

SPEED = Path(__file__).parents[1] / "experiments" / "speed"
sys.path.append(str(SPEED))

import train  # noqa: E402
from train_parts import arm_facts, arm_nnx, arm_ours, checks, rows, tables, windows  # noqa: E402
from train_parts.job import Job, draw_batch, mean_and_std  # noqa: E402

from cnn_vit.training import forward  # noqa: E402

# Names of arms --------------------------------------------------------------------------------------------------------


def test_a_list_of_arms_is_read_with_the_commas_of_their_options():
    arms = rows.read_arms("ours,ours:E,R,ours:none+onednn,nnx+keep,torch+keep+bf16")
    assert [arm.name for arm in arms] == ["ours", "ours:E,R", "ours:none+onednn", "nnx+keep", "torch+keep+bf16"]
    assert [arm.framework for arm in arms] == ["ours", "ours", "ours", "nnx", "torch"]
    assert [arm.options for arm in arms] == [None, "E,R", "none", None, None]
    assert [arm.modifiers for arm in arms] == [(), (), ("onednn",), ("keep",), ("keep", "bf16")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("jax", "there is no arm 'jax'"),
        ("ours,ours", "ours stands twice"),
        ("nnx:E", "only the arm `ours` takes options"),
        ("ours:Q", "there are no options 'Q'"),
        ("ours:E,Q", "there is no arm 'Q'"),
        ("ours+onednn", "write ours:default.onednn"),
        ("ours+keep", "keeps freed pages always"),
        ("nnx+bf16", "computes in float32"),
        ("nnx+workers", "is for torch"),
        ("torch+fast", r"there is no \+fast"),
    ],
)
def test_an_arm_that_cannot_be_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        rows.read_arms(text)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ours:default", {}),
        ("ours:none", {"xla_cpu_experimental_ynn_fusion_type": ""}),
        (
            "ours:E,R",
            {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_ELTWISE,LIBRARY_FUSION_TYPE_REDUCE"},
        ),
        (
            "ours:INDIVIDUAL_DOT+onednn",
            {
                "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
                "xla_cpu_experimental_onednn_custom_call": True,
            },
        ),
    ],
)
def test_the_name_of_an_arm_says_what_the_compiler_is_told(name, options):
    assert rows.compiler_options(rows.read_arm(name)) == options


def test_files_are_read_by_ours_and_torch_on_rows_that_have_files():
    names = ["ours", "ours:none", "nnx", "torch", "torch+workers"]
    arms = [rows.read_arm(name) for name in names]
    assert [arm.measures("end_to_end", rows.ROWS["resnet20"]) for arm in arms] == [True, False, False, True, True]
    assert not any(arm.measures("end_to_end", rows.ROWS["lenet"]) for arm in arms)
    assert [arm.measures("step", rows.ROWS["lenet"]) for arm in arms] == [True, True, True, True, False]


# The arms compute the same --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Makes the job of a row with a batch of four images, with its values written once."""
    folder = tmp_path_factory.mktemp("values")

    def make_job(name):
        row = replace(rows.ROWS[name], batch_size=4)
        path = folder / f"{name}.npz"
        if not path.exists():
            arm_facts.write_values(row, path)
        return Job(row=row, arm=rows.read_arm("ours"), values=path, images=None, began=0.0)

    return make_job


def drawn_images(row):
    """The images of a row's batch as its networks see them, (B, H, W, C) float32."""
    mean, std = mean_and_std(row)
    return (draw_batch(row)[0].astype(np.float32) / 255 - mean) / std


def our_scores(job):
    """The scores of the package's own network."""
    network = forward.get_network(arm_ours.network_spec(job.row, "float32"))
    values = arm_ours.read_values(job, network)
    apply = jax.jit(lambda params, stats, images: network.apply(params, stats, images)[0])
    return np.asarray(apply(values["params"], values["stats"], drawn_images(job.row)))


def largest_share(difference, scores):
    """The largest difference as a share of the largest score."""
    return np.abs(difference).max() / np.abs(scores).max()


SMALL_ROWS = pytest.mark.parametrize(
    "name", ["lenet", "cnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet20", "mobilenet"))]
)


@SMALL_ROWS
def test_the_tutorial_network_scores_as_ours_does(jobs, name):
    job = jobs(name)
    model = arm_nnx.build_network(job)
    model.eval()
    scores = our_scores(job)
    tutorial_scores = np.asarray(arm_nnx.nnx.jit(lambda model, images: model(images))(model, drawn_images(job.row)))
    assert largest_share(tutorial_scores - scores, scores) < 1e-5
    assert scores.std(0).max() > 1e-2  # the images do not all score alike


@SMALL_ROWS
def test_the_torch_network_scores_as_ours_does(jobs, name):
    torch = pytest.importorskip("torch", reason="torch is an extra")
    from train_parts import arm_torch

    job = jobs(name)
    model = arm_torch.build_network(job).eval()
    with torch.inference_mode():
        torch_scores = model(torch.from_numpy(drawn_images(job.row)).permute(0, 3, 1, 2)).numpy()
    scores = our_scores(job)
    assert largest_share(torch_scores - scores, scores) < 1e-5


READY = {
    "device": "cpu",
    "parameters": 10,
    "cores": 2,
    "threads": 2,
    "scores": [[1.0, -4.0], [2.0, 3.0]],
    "losses": [2.0, 1.9, 1.8],
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, ""),
        ({"scores": [[1.003, -4.0], [2.0, 3.0]], "losses": [2.0, 1.9, 1.8019]}, ""),
        ({"device": "gpu"}, "it runs on a gpu, not on a cpu"),
        ({"parameters": 1011}, "it has 1,011 parameters, not 10"),
        ({"threads": 1}, "it has 1 threads, not 2"),
        ({"scores": [[1.0, -4.0]]}, "its scores are (1, 2), not (2, 2)"),
        ({"scores": [[1.02, -4.0], [2.0, 3.0]]}, "its scores differ by 0.005 of the largest, more than 0.001"),
        ({"scores": [[float("nan"), -4.0], [2.0, 3.0]]}, "its scores differ by nan of the largest, more than 0.001"),
        ({"losses": [2.0, 1.9, 1.8021]}, "its loss is 1.80210 at step 3, not 1.80000"),
        ({"losses": [2.0, float("nan"), 1.8]}, "its loss is nan at step 2, not 1.90000"),
    ],
)
def test_an_arm_that_computes_something_else_is_refused(changes, sentence):
    assert checks.find_difference(READY | changes, READY) == sentence


def test_bfloat16_may_differ_by_its_rounding():
    scores = [[1.02, -4.1], [2.0, 3.0]]
    assert checks.find_difference(READY | {"scores": scores}, READY)
    assert not checks.find_difference(READY | {"scores": scores}, READY, is_bfloat16=True)


# Windows --------------------------------------------------------------------------------------------------------------


def window(rate=100.0, *, own=1.0, others=0.0, **more):
    """A window of a second at so many images a second."""
    return dict(
        images=rate,
        seconds=1.0,
        cpu_seconds=2.0,
        own_share=own,
        others_share=others,
        peak_rss_bytes=2**30,
        peak_device_bytes=None,
        **more,
    )


@pytest.mark.parametrize(
    ("own", "others", "quiet"), [(1.0, 0.0, True), (1.0, 0.1, True), (1.0, 0.11, False), (0.84, 0.0, False)]
)
def test_a_window_is_quiet_where_nothing_else_had_the_cores(own, others, quiet):
    assert windows.is_quiet(window(own=own, others=others), largest_own_share=1.0) is quiet


def test_an_arm_that_never_uses_all_cores_is_not_noisy_for_that():
    assert windows.is_quiet(window(own=0.5), largest_own_share=0.55)


class ScriptedArm:
    """An arm whose windows are written down beforehand; `log` collects the order of all arms."""

    def __init__(self, name, scripted_windows, log):
        self.arm = rows.read_arm(name)
        self.windows = iter(scripted_windows)
        self.log = log

    def measure(self, work, seconds):
        self.log.append(self.arm.framework)
        return next(self.windows)


class CountingArm(windows.ArmProcess):
    """An arm without a process: each step takes so many seconds; `asked` lists steps, `signals` what would be sent."""

    def __init__(self, seconds_per_step):
        self.arm = rows.read_arm("ours")
        self.ready = {"cores": 2}
        self.steps_taken = Counter()
        self.seconds_per_step = {}
        self.pace = seconds_per_step
        self.asked = []
        self.signals = []
        self.process = self

    def send_signal(self, number):
        self.signals.append(number)

    def ask(self, message):
        self.asked.append(message["steps"])
        seconds = message["steps"] * self.pace
        return {"steps": message["steps"], "images": message["steps"], "seconds": seconds, "cpu_seconds": 0.0}


def test_a_window_holds_as_many_steps_as_fit_behind_a_warm_up():
    arm = CountingArm(0.1)
    for _ in range(2):
        assert arm.measure("step", 2.0)["steps"] == 20
    assert arm.asked == [1, 1, 3, 20, 3, 20]  # two that tell the pace; 15 % of the steps before each window
    assert arm.signals == [signal.SIGCONT, signal.SIGSTOP] * 2


@pytest.mark.parametrize(("pace", "asked"), [(3.0, [1, 1, 1]), (30.0, [1, 1])])
def test_a_step_longer_than_a_window_needs_no_warm_up(pace, asked):
    arm = CountingArm(pace)
    assert arm.measure("step", 2.0)["steps"] == 1
    assert arm.asked == asked


def test_arms_are_measured_in_turn_and_noisy_windows_again():
    log = []
    arms = [
        ScriptedArm("ours", [window(100), window(90, others=0.3), window(101)], log),
        ScriptedArm("nnx", [window(50), window(20, others=0.4), window(30, others=0.2)], log),
    ]
    measured = windows.measure_rounds(arms, "step", rounds=2, seconds=1, retries=1)
    assert log == ["ours", "nnx", "ours", "ours", "nnx", "nnx"]
    columns = ("images", "round", "noisy", "refused")
    counted = {name: [tuple(part[key] for key in columns) for part in parts] for name, parts in measured.items()}
    assert counted == {
        "ours": [(100, 0, False, 0), (101, 1, False, 1)],
        "nnx": [(50, 0, False, 0), (30, 1, True, 1)],  # the quieter of the two
    }


def test_an_arm_that_would_not_fit_into_the_memory_is_not_started(monkeypatch):
    arm = ScriptedArm("ours", [], [])
    arm.ready = {"peak_rss_bytes": 3_000_000_000}
    monkeypatch.setattr(windows, "available_bytes", lambda: 3_500_000_000)
    with pytest.raises(windows.ArmError, match=r"3.5 GB of memory are free and an arm takes 3.0; measure fewer arms"):
        windows.refuse_full_memory([arm])
    monkeypatch.setattr(windows, "available_bytes", lambda: 3_700_000_000)
    windows.refuse_full_memory([arm])


def test_the_median_is_that_of_the_quiet_windows():
    parts = [
        window(rate, round=number, noisy=rate < 50, refused=number % 2)
        for number, rate in enumerate([100.0, 10.0, 120.0, 140.0])
    ]
    summary = windows.summarize_windows(parts)
    assert summary["images_per_second"] == 120
    assert (summary["least"], summary["most"]) == (100, 140)
    assert (summary["quiet_windows"], summary["noisy_windows"], summary["refused_windows"]) == (3, 1, 2)


def test_without_a_quiet_window_all_are_counted():
    parts = [window(rate, round=0, noisy=True, refused=0) for rate in (10.0, 20.0, 60.0)]
    assert windows.summarize_windows(parts)["images_per_second"] == 20
    assert windows.summarize_windows(parts)["quiet_windows"] == 0


# Tables ---------------------------------------------------------------------------------------------------------------


def make_result(rates, *, row="cnn", work="step", jaxlib="0.10.2", noisy=()):
    """A result with so many images a second by arm and round; `noisy` names (arm, round)."""
    arms = {}
    for name, arm_rates in rates.items():
        parts = [
            window(rate, round=number, noisy=(name, number) in noisy, refused=0)
            for number, rate in enumerate(arm_rates)
        ]
        ready = dict(parameters=1234, compile_seconds=1.25, temp_bytes=3 * 2**20, first_step_seconds=4.5)
        arms[name] = ready | windows.summarize_windows(parts) | {"windows": parts}
    versions = {"python": "3.11.7", "jaxlib": jaxlib, "flax": "0.12.8", "torch": "2.13.0"}
    environment = dict(versions=versions, cores=2, machine="x86_64", devices=dict(kind="cpu", count=1))
    return dict(
        row=row, work=work, batch_size=128, macs=1_000_000, environment=environment,
        peaks={"jax": 55.0, "numpy": 60.0}, arms=arms,
    )  # fmt: skip


RESULT = make_result({"torch+keep": [1000, 1250], "ours": [1000, 1000], "torch": [2000, 2000], "nnx+keep": [500, 300]})


def test_the_table_holds_medians_spreads_ratios_and_the_share_of_the_peak():
    """1,000 images of 1,000,000 multiply-accumulates, six operations each, are 6 of 60 GFLOP/s.

    Of torch the arms with the same allocator settings count; by round the ratios are 1000 / 1000 and 1000 / 1250, of
    the medians 1000 / 1125.
    """
    table = tables.format_results([RESULT])
    assert table.startswith(
        "**Python 3.11.7, jaxlib 0.10.2, flax 0.12.8, torch 2.13.0; 2 cores of x86_64**\n\n"
        "Training step (with its optimizer), images a second\n\n"
        "| row, batch | ours | nnx+keep | torch | torch+keep | ours / torch's best | ours / nnx | "
        "ours, of the matmul peak |\n"
        "|---|---|---|---|---|---|---|---|\n"
        "| `cnn`, 128 | 1,000 (1,000 to 1,000) | 400 (300 to 500) | 2,000 (2,000 to 2,000) | 1,125 (1,000 to 1,250) | "
        "0.89 (0.80 to 1.00) | 2.50 (2.00 to 3.33) | 10 % of 60 GFLOP/s |\n\n"
    )
    # 2 CPU-seconds for 500 images, and for 300: 4 and 6.67 ms an image
    assert "| `cnn`, 128 | nnx+keep | 1,234 | 3 | 1.00 | 1.2 | 4.5 | 5.33 | 4 % of 60 GFLOP/s |" in table


def test_what_was_never_quiet_is_marked():
    noisy = {("ours", 0), ("ours", 1)}
    table = tables.format_results([make_result({"ours": [10, 20], "nnx": [10, 10]}, noisy=noisy)])
    assert "| ~15.0 (10.0 to 20.0) | 10.0 (10.0 to 10.0) |  | ~1.50 |" in table


def test_options_of_the_compiler_have_a_table_of_their_own():
    table = tables.format_results([RESULT, make_result({"ours:none": [5, 5], "ours:R": [7, 7]})])
    assert table.count("Training step (with its optimizer), images a second\n") == 1
    assert "| row, batch | ours:R | ours:none |\n|---|---|---|\n| `cnn`, 128 | **7.00 (7.00 to 7.00)** | 5.00" in table


def test_rows_stand_in_their_order_and_environments_apart():
    results = [make_result({"ours": [1, 1]}, row=row, jaxlib=jaxlib) for row, jaxlib in
               (("cnn", "0.10.2"), ("cnn", "0.12.0"), ("lenet", "0.10.2"))]  # fmt: skip
    table = tables.format_results(results)
    positions = [table.index(text) for text in ("jaxlib 0.10.2", "`lenet`", "`cnn`", "jaxlib 0.12.0")]
    assert positions == sorted(positions)
    assert tables.format_results([]) == "Nothing is measured yet."


def test_a_result_replaces_the_earlier_one_of_the_same_row_and_versions_alone():
    later = make_result({"ours": [3, 3]})
    unrelated = [
        make_result({"ours": [1, 1]}, work="inference"),
        make_result({"ours": [1, 1]}, row="lenet"),
        make_result({"ours": [1, 1]}, jaxlib="0.12.0"),
        make_result({"ours:none": [1, 1]}),
    ]
    assert train.replace_results([RESULT, *unrelated], [later]) == [*unrelated, later]


def test_the_plot_has_a_line_for_each_row_and_arm():
    plot = tables.draw_shares([RESULT])
    assert plot == tables.draw_shares([RESULT])
    for name in ("cnn, ours", "cnn, nnx+keep", "cnn, torch+keep"):
        assert name in plot
    assert tables.draw_shares([make_result({"ours": [1, 1]}, work="inference")]) is None


def test_without_torch_its_arms_are_left_out_with_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(train, "is_installed", lambda distribution: False)
    assert [arm.name for arm in train.drop_missing(rows.read_arms("ours,torch+keep,compile"))] == ["ours"]
    assert "torch is not installed" in capsys.readouterr().err
