"""`doctor`: what it says of this machine, and the remedy that it names for each problem."""

import importlib.metadata
import json
import os

import pytest
from packaging.requirements import Requirement

from cnn_vit import compilation, files, process
from cnn_vit.__main__ import main
from cnn_vit.cli import _compiler, doctor
from cnn_vit.errors import SurroundingsError
from cnn_vit.files import cache

HEALTHY = {
    "versions": {"jax": "0.10.2"},
    "devices": {"TFRT_CPU_0": "cpu cpu"},
    "cores": {"machine": 8, "usable": 8, "granted": None},
    "memory": {"total": 16.0, "available": 8.0, "limit": None},
    "disk": {"current folder (x)": 50.0},
}
PREPARED = {"allocator": "keeps freed pages", "cache": "cache", "why_no_cache": "", "environment": {}}


def find_problems(changed, **prepared):
    """The problems of a healthy machine with these changes in its record and in what `process` prepared."""
    return doctor.find_problems(HEALTHY | changed, process.Prepared(**(PREPARED | prepared)))


def test_it_says_versions_devices_cores_memory_disk_and_settings(capsys):
    assert main(["doctor", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert list(record) == [
        *("versions", "devices", "cores", "memory", "disk", "cache", "settings", "compiler_options", "problems")
    ]
    assert record["versions"]["jax"] == importlib.metadata.version("jax")
    assert any(kind.startswith(("cpu", "gpu", "tpu")) for kind in record["devices"].values())
    assert record["cores"]["usable"] == len(os.sched_getaffinity(0))
    assert record["memory"]["total"] > 0.1
    assert all(free >= 0 for free in record["disk"].values())
    assert {"allocator", "compilation cache"} <= record["settings"].keys()


def test_it_says_the_size_of_each_part_of_the_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CNN_VIT_CACHE", str(tmp_path / "mine"))
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache"] == {f"{tmp_path}/mine": 0}
    files.write(tmp_path / "mine" / "data" / "x.tar.gz", bytes(2_540_000))
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache"] == {f"{tmp_path}/mine/data": 2.5}
    monkeypatch.setattr(cache, "folder", raise_homeless)
    assert doctor.measure_cache() == {"none": "there is no home folder"}


def raise_homeless():
    raise SurroundingsError("there is no home folder")


def test_the_table_ends_with_the_problems_and_the_next_command(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "next: cnn-vit train"
    assert {"memory, GB", "free disk, GB", "cache, MB", "problems"} <= set(lines)


@pytest.mark.parametrize(
    ("changed", "prepared", "beginning"),
    [
        ({}, {}, None),
        ({"devices": {"none": "no backend"}}, {}, "no backend"),
        (
            {"cores": {"machine": 64, "usable": 64, "granted": 2.0}},
            {},
            "64 cores are usable, but only 2 are granted; start with taskset -c 0-1",
        ),
        ({"memory": {"total": 64.0, "available": 32.0, "limit": 1.5}}, {}, "only 1.5 GB of memory is available; "),
        ({"disk": {"cache (y)": 0.2}}, {}, "only 0.2 GB is free in cache (y); make room"),
        (
            {},
            {"why_no_cache": "x cannot be written; y"},
            "every start compiles all programs again: x cannot be written; y",
        ),
        ({}, {"environment": {"CNN_VIT_CACH": "a"}}, "nothing reads CNN_VIT_CACH; did you mean CNN_VIT_CACHE?"),
        ({}, {"environment": {"CNN_VIT_CACHE": "a"}}, None),
    ],
)
def test_each_problem_has_its_remedy(monkeypatch, changed, prepared, beginning):
    monkeypatch.setattr(doctor, "read_requirements", lambda: [Requirement("jax>=0.10")])
    problems = find_problems(changed, **prepared)
    assert [problem[: len(beginning or "")] for problem in problems] == ([beginning] if beginning else [])


def test_a_folder_that_cannot_be_written_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "read_requirements", list)
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    (problem,) = find_problems({})
    assert problem.endswith("cannot be written; give --workdir=DIR or go to another folder")


@pytest.mark.parametrize(
    ("version", "bounds", "is_satisfied"),
    [
        ("0.10.2", ">=0.10.2", True),
        ("0.9.9", ">=0.10.2", False),
        ("0.12.8", "<0.13,>=0.12.8", True),
        ("0.13.0", "<0.13,>=0.12.8", False),
        ("2.0.0rc1", ">=2.0", True),
        ("missing", ">=2.0", False),
        ("missing", "", False),
        # What the library `packaging` knows beyond >= and <.
        ("1.2", "!=1.2", False),
        ("2", ">=2.0", True),
        ("1.5.1", "~=1.4", True),
        ("2.1.0+cuda", ">=2.1", True),
        ("by hand", ">=2.0", False),
        ("by hand", "", True),
    ],
)
def test_versions_outside_their_bounds_are_a_problem(monkeypatch, version, bounds, is_satisfied):
    monkeypatch.setattr(doctor, "read_requirements", lambda: [Requirement(f"thing{bounds}")])
    problems = find_problems({"versions": {"thing": version}})
    assert bool(problems) is not is_satisfied
    sentence = f"thing is {version}, {bounds or 'any version'} is required; pip install 'thing"
    assert is_satisfied or problems[0].startswith(sentence)


def test_requirements_of_extras_and_of_other_machines_are_left_out(monkeypatch):
    lines = [
        "jax>=0.10.2",
        'wandb>=0.19; extra == "wandb"',
        'colorama; sys_platform == "nowhere"',
        'numpy>=2.0; python_version >= "3.11"',
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert [requirement.name for requirement in doctor.read_requirements()] == ["jax", "numpy"]


@pytest.mark.parametrize(
    ("kernel_files", "granted"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({}, None),
        ({"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_the_cores_that_a_control_group_grants_are_read(monkeypatch, kernel_files, granted):
    monkeypatch.setattr(doctor, "read_first_line", lambda path: kernel_files.get(path.rpartition("/")[2], ""))
    assert doctor.read_granted_cores() == granted


# Compiler options -----------------------------------------------------------------------------------------------------

YNN = compilation.YNN
CPU = {"TFRT_CPU_0": "cpu cpu"}
WRONG_SUMS = "sums over more than 32,768 rows come out wrong (jax issue 39103)"


@pytest.fixture
def _pretend(monkeypatch):
    """Makes the jaxlib 0.10.2, with options that are set unasked, and no variables."""
    monkeypatch.setattr(compilation, "installed_jaxlib", lambda: "0.10.2")
    monkeypatch.setattr(compilation, "keep_known", lambda options: options)
    monkeypatch.setattr(doctor, "read_requirements", list)
    for name in ("CNN_VIT_TUNE", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_pretend")
def test_the_options_of_each_kind_of_program_and_the_fault_that_they_avoid_are_listed():
    lines = _compiler.collect_options(CPU)
    kinds = ["convolutional, float32", "convolutional, bfloat16", "other, float32", "other, bfloat16"]
    assert {name: lines[name] for name in kinds} == dict.fromkeys(kinds, f"{YNN}=none")
    assert lines["fault avoided"].startswith(f"under the defaults of jaxlib 0.10.2, {WRONG_SUMS}")
    assert lines["fault avoided"].endswith("Python 3.12 or later installs a sound jaxlib")
    assert find_problems({}) == []


@pytest.mark.usefixtures("_pretend")
@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("CNN_VIT_TUNE", "0", "CNN_VIT_TUNE=0 brings this back: unset it"),
        ("XLA_FLAGS", f"--{YNN}=reduce", f"{YNN} in XLA_FLAGS brings this back: leave it out"),
    ],
)
def test_whoever_brings_the_fault_back_is_warned(monkeypatch, name, value, cause):
    monkeypatch.setenv(name, value)
    (problem,) = find_problems({}, environment={name: value})
    assert problem.startswith(f"numbers may be wrong: under jaxlib 0.10.2, {WRONG_SUMS}")
    assert problem.endswith(f"; {cause}; Python 3.12 or later installs a sound jaxlib")
    assert "fault avoided" not in _compiler.collect_options(CPU)


@pytest.mark.usefixtures("_pretend")
def test_an_option_that_the_jaxlib_at_fault_lacks_is_a_problem(monkeypatch):
    monkeypatch.setattr(compilation, "keep_known", lambda options: {})
    (problem,) = find_problems({})
    assert problem.endswith("; no option avoids it; Python 3.12 or later installs a sound jaxlib")


@pytest.mark.usefixtures("_pretend")
def test_without_the_part_at_fault_it_does_not_matter_who_left_it_out(monkeypatch):
    monkeypatch.setenv("CNN_VIT_TUNE", "0")
    monkeypatch.setenv("XLA_FLAGS", f"--{YNN}=")
    assert find_problems({}, environment={"CNN_VIT_TUNE": "0", "XLA_FLAGS": f"--{YNN}="}) == []
    assert _compiler.collect_options(CPU)["other, float32"] == f"{YNN}=none"


@pytest.mark.usefixtures("_pretend")
def test_a_sound_jaxlib_and_other_platforms_have_no_fault(monkeypatch):
    assert _compiler.collect_options({"cuda:0": "gpu H100"}) == dict.fromkeys(
        ["convolutional, float32", "convolutional, bfloat16", "other, float32", "other, bfloat16"], "those of jaxlib"
    )
    assert _compiler.collect_options({"none": "no backend"}) == {"none": "there is no device to compile for"}
    monkeypatch.setattr(compilation, "installed_jaxlib", lambda: "0.12.0.1")
    monkeypatch.setenv("CNN_VIT_TUNE", "0")
    assert find_problems({}) == []
    assert "fault avoided" not in _compiler.collect_options(CPU)
