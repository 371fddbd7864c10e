"""Publishing: local artefacts by a rename, those on object stores by a last document."""

from __future__ import annotations

import json
import uuid

import pytest

from pipeline.artefacts import describe, publishing, read_description, refuse_other, require
from pipeline.objects import Objects
from transforms.errors import InputError


@pytest.fixture
def url():
    address = f"memory://{uuid.uuid4().hex}/store.zarr"
    yield address
    Objects(address).remove()


def write(objects: Objects, fingerprint: str) -> None:
    attributes = {"spherecast": describe("training store", fingerprint)}
    objects.write("zarr.json", json.dumps({"attributes": attributes}).encode())
    objects.write("t/c/0", b"data")


def test_an_address_is_complete_when_its_last_document_is_there(url):
    with publishing(url) as place:
        assert place == url
        write(Objects(url), "one")
        assert read_description(url) is None
        with pytest.raises(InputError, match=r"training store is missing or incomplete; make it\."):
            require(url, "training store", "make it")
    assert require(url, "training store", "make it")["fingerprint"] == "one"
    assert refuse_other(url, "one", overwrite=False)
    with pytest.raises(InputError, match=r"made from other settings or inputs \(one\); expected two"):
        refuse_other(url, "two", overwrite=False)
    assert not refuse_other(url, "two", overwrite=True)


def test_a_failed_attempt_at_an_address_is_not_complete_and_is_gone_on_with_or_removed(url):
    attempt = publishing(url)
    attempt.__enter__()
    write(Objects(url), "one")
    assert not attempt.__exit__(KeyError, KeyError("failed"), None)
    assert read_description(url) is None
    assert not refuse_other(url, "one", overwrite=False)
    with pytest.raises(InputError, match="made from other settings"):
        refuse_other(url, "two", overwrite=False)
    with publishing(url, keep_partial=True):
        assert Objects(url).find() == {"zarr.json", "t/c/0"}
    with publishing(url):
        assert Objects(url).find() == set()
        write(Objects(url), "three")
    assert read_description(url)["fingerprint"] == "three"


def test_what_is_not_ours_at_an_address_is_refused(url):
    assert not refuse_other(url, "one", overwrite=False)
    Objects(url).write("notes.txt", b"mine")
    with pytest.raises(InputError, match="not ours"):
        refuse_other(url, "one", overwrite=False)


@pytest.mark.parametrize("root", ["local", "memory"])
def test_objects_are_replaced_whole_and_listed_by_key(root, tmp_path, url):
    objects = Objects(url if root == "memory" else str(tmp_path / "store"))
    assert objects.read("a/b") is None
    assert objects.find() == set()
    objects.write("a/b", b"one")
    objects.write("a/b", b"two")
    objects.write("c", b"")
    assert (objects.read("a/b"), objects.read("c"), objects.find(), objects.find("a")) == (
        b"two",
        b"",
        {"a/b", "c"},
        {"a/b"},
    )
    objects.remove("a")
    objects.remove("never")
    assert objects.find() == {"c"}


def test_leftovers_of_killed_writers_are_no_objects(tmp_path):
    objects = Objects(str(tmp_path))
    objects.write("a/b", b"one")
    (tmp_path / "a" / ".writing-host-1-2").write_bytes(b"half")
    assert objects.find() == {"a/b"}
    objects.remove_leftovers()
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["b"]
