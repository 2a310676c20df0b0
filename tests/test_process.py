"""What is set before jax is imported, and that the user's own settings stay."""

import sys

import pytest

from cnn_vit import process
from cnn_vit.errors import UserError


@pytest.fixture(autouse=True)
def _before_jax(monkeypatch):
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    monkeypatch.setattr(process, "keep_pages", lambda: "keeps freed pages")  # it would last for the other tests


def test_compiled_programs_are_cached_whatever_their_size(tmp_path):
    environ = {"CNN_VIT_CACHE": str(tmp_path / "new")}
    found = process.prepare(environ)
    assert found.cache == str(tmp_path / "new" / "xla")
    assert environ["JAX_COMPILATION_CACHE_DIR"] == found.cache
    assert environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
    assert environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] == "-1"
    assert found.allocator == "keeps freed pages"
    assert not (tmp_path / "new").exists()  # jax makes it


def test_the_users_own_settings_stay(tmp_path):
    theirs = {"JAX_COMPILATION_CACHE_DIR": "theirs", "TF_CPP_MIN_LOG_LEVEL": "0", "CNN_VIT_TUNE": "0", "HOME": "x"}
    environ = dict(theirs)
    found = process.prepare(environ)
    assert {key: environ[key] for key in theirs} == theirs
    assert (found.cache, found.allocator) == ("theirs", "left alone: CNN_VIT_TUNE=0")
    assert found.environment.keys() == theirs.keys() - {"HOME"}


def test_without_a_folder_to_write_it_goes_on_and_says_why(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    environ = {"CNN_VIT_CACHE": str(tmp_path / "file" / "deeper")}
    found = process.prepare(environ)
    assert found.cache is None
    assert found.why_no_cache == f"{tmp_path / 'file'} cannot be written; set CNN_VIT_CACHE to a folder that can"
    assert "JAX_COMPILATION_CACHE_DIR" not in environ

    monkeypatch.setattr(process.os.path, "expanduser", lambda path: path)  # no HOME and no such user
    assert process.prepare({}).why_no_cache.startswith("there is no home folder; set CNN_VIT_CACHE")


def test_nothing_is_set_once_jax_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", sys)
    environ: dict[str, str] = {}
    assert process.prepare(environ).allocator == "left alone: jax was imported before"
    assert environ == {}


def test_what_is_said_of_downloads_is_read():
    said = {"CNN_VIT_CACHE": "/c", "CNN_VIT_OFFLINE": "1", "CNN_VIT_MIRROR": "https://a.org"}
    assert process.cache_environment(said) == {"folder": "/c", "offline": True, "mirror": "https://a.org"}
    for nothing in ({}, dict.fromkeys(said, ""), {"CNN_VIT_OFFLINE": "0"}):
        assert not any(process.cache_environment(nothing).values())
    with pytest.raises(UserError, match="CNN_VIT_OFFLINE=yes is neither 0 nor 1; 1 forbids downloads"):
        process.cache_environment({"CNN_VIT_OFFLINE": "yes"})
