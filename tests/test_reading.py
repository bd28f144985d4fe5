"""Small files of strangers: plain, of bounded size, and JSON of bounded depth."""

import io
import json
import os
from zipfile import ZipFile

import pytest

from demokit.reading import (
    MOST_BYTES,
    MOST_DEPTH,
    MOST_TABLE_BYTES,
    open_archive,
    parse_json,
    parse_object,
    read_bytes,
    read_json,
)


def nested(levels):
    return "[" * levels + "1" + "]" * levels


def test_sound_json_is_what_it_says():
    value = {"a": [1, 2.5, None, True, "ü"], "b": {"c": {}}}
    assert parse_json(json.dumps(value)) == value
    assert parse_object(json.dumps(value).encode()) == value
    assert parse_json(nested(MOST_DEPTH - 1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (nested(MOST_DEPTH + 1), "levels"),
        (nested(100_000), "levels"),
        ('{"a":' * 500 + "1" + "}" * 500, "levels"),
        ("[" * 10**6, "levels"),
        (" " * (MOST_BYTES + 1) + "1", "16 MiB"),
        ('"\\ud800"', "surrogates"),
        ('{"\\udfff": 1}', "surrogates"),
        ("1" * 5000, "digit"),
        (b"\xff\xfe\xff", "decode"),
        ("", "Expecting value"),
        (None, "NoneType"),
        ({}, "dict"),
    ],
)
def test_other_json_is_one_kind_of_error(text, said):
    with pytest.raises(ValueError, match=said):
        parse_json(text)


@pytest.mark.parametrize("text", ["[]", "1", '"a"', "null"])
def test_what_should_be_an_object(text):
    with pytest.raises(ValueError, match="no JSON object"):
        parse_object(text)


def test_only_regular_files_of_bounded_size(tmp_path):
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    large.write_bytes(b"1" * 1000)
    for path, said in ((pipe, "pipe"), ("/dev/zero", "pipe"), (tmp_path, "directory")):
        with pytest.raises(OSError, match=said):
            read_json(type(tmp_path)(path))
    with pytest.raises(ValueError, match="more than"):
        read_bytes(large, 999)
    assert read_bytes(large, 1000) == b"1" * 1000


def test_an_archive_has_a_bounded_table_and_members_of_any_length():
    stream, long = io.BytesIO(), bytes(MOST_TABLE_BYTES + 1)
    with ZipFile(stream, "w") as archive:
        archive.writestr("long", long)
    with open_archive(stream) as archive:
        assert archive.read("long") == long
    with ZipFile(stream, "a") as archive:
        for index in range(40):
            archive.writestr(f"{index:060000d}", b"")
    with pytest.raises(ValueError, match="table of members of 2 MiB"):
        open_archive(stream)
