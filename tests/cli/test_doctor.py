"""`doctor`: what it finds here, and the remedy of each problem."""

import importlib.metadata
import json
import os

import pytest

from cnn_vit import files, process
from cnn_vit.__main__ import main
from cnn_vit.cli import doctor
from cnn_vit.errors import SurroundingsError
from cnn_vit.files import cache

FINE = {
    "versions": {"jax": "0.10.2"},
    "devices": {"TFRT_CPU_0": "cpu cpu"},
    "cores": {"machine": 8, "usable": 8, "granted": None},
    "memory": {"total": 16.0, "available": 8.0, "limit": None},
    "disk": {"current folder (x)": 50.0},
}
NOTHING = process.Prepared("keeps freed pages", "cache", "", {})


def test_it_tells_versions_devices_cores_memory_disk_and_settings(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["versions", "devices", "cores", "memory", "disk", "cache", "settings", "problems"]
    assert found["versions"]["jax"] == importlib.metadata.version("jax")
    assert any(kind.startswith(("cpu", "gpu", "tpu")) for kind in found["devices"].values())
    assert found["cores"]["usable"] == len(os.sched_getaffinity(0))
    assert found["memory"]["total"] > 0.1
    assert all(free >= 0 for free in found["disk"].values())
    assert {"allocator", "compilation cache"} <= found["settings"].keys()


def test_the_cache_is_told_with_the_size_of_each_part(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CNN_VIT_CACHE", str(tmp_path / "mine"))
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache"] == {f"{tmp_path}/mine": 0}
    files.write(tmp_path / "mine" / "data" / "x.tar.gz", bytes(2_540_000))
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cache"] == {f"{tmp_path}/mine/data": 2.5}
    monkeypatch.setattr(cache, "folder", homeless)
    assert doctor.cached() == {"none": "there is no home folder"}


def homeless():
    raise SurroundingsError("there is no home folder")


def test_the_table_ends_with_the_problems_and_the_next_command(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "next: cnn-vit train"
    assert {"memory, GB", "free disk, GB", "cache, MB", "problems"} <= set(lines)


@pytest.mark.parametrize(
    ("changed", "prepared", "said"),
    [
        ({}, {}, None),
        ({"devices": {"none": "no backend"}}, {}, "jax finds no device (no backend); unset JAX_PLATFORMS"),
        (
            {"cores": {"machine": 64, "usable": 64, "granted": 2.0}},
            {},
            "64 cores are usable but 2 granted; start with taskset -c 0-1",
        ),
        ({"memory": {"total": 64.0, "available": 32.0, "limit": 1.5}}, {}, "1.5 GB of memory at hand; "),
        ({"disk": {"cache (y)": 0.2}}, {}, "0.2 GB free in cache (y); make room"),
        ({}, {"why_no_cache": "x cannot be written; y"}, "every start compiles anew: x cannot be written; y"),
        ({}, {"environment": {"CNN_VIT_CACH": "a"}}, "CNN_VIT_CACH is read by nothing; did you mean CNN_VIT_CACHE?"),
        ({}, {"environment": {"CNN_VIT_CACHE": "a"}}, None),
    ],
)
def test_each_problem_has_its_remedy(monkeypatch, changed, prepared, said):
    monkeypatch.setattr(doctor, "requirements", lambda: [("jax", ">=0.10")])
    found = doctor.problems(FINE | changed, NOTHING._replace(**prepared))
    assert [problem[: len(said or "")] for problem in found] == ([said] if said else [])


def test_a_folder_that_cannot_be_written_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "requirements", list)
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    (problem,) = doctor.problems(FINE, NOTHING)
    assert problem.endswith("cannot be written; give --workdir=DIR or go to another folder")


@pytest.mark.parametrize(
    ("version", "bounds", "kept"),
    [
        ("0.10.2", ">=0.10.2", True),
        ("0.9.9", ">=0.10.2", False),
        ("0.12.8", "<0.13,>=0.12.8", True),
        ("0.13.0", "<0.13,>=0.12.8", False),
        ("2.0.0rc1", ">=2.0", True),
        ("missing", ">=2.0", False),
        ("missing", "", False),
    ],
)
def test_versions_outside_their_bounds_are_a_problem(monkeypatch, version, bounds, kept):
    monkeypatch.setattr(doctor, "requirements", lambda: [("thing", bounds)])
    found = doctor.problems(FINE | {"versions": {"thing": version}}, NOTHING)
    assert bool(found) is not kept
    assert kept or found[0].startswith(f"thing is {version}, {bounds or 'any version'} is required; pip install 'thing")


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({}, None),
        ({"cpu.cfs_quota_us": "200000", "cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_the_share_of_a_control_group_is_read(monkeypatch, files, granted):
    monkeypatch.setattr(doctor, "first_line", lambda path: files.get(path.rpartition("/")[2], ""))
    assert doctor.container_cores() == granted
