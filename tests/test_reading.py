"""Small files of strangers: plain, of bounded size, and JSON of bounded depth."""

import json
import os

import pytest

from demokit.reading import MOST_BYTES, MOST_DEPTH, parse_json, parse_object, read_bytes, read_json


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
