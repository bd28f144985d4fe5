"""Changes to files: to any bytes, and to what formats are made of.

Each takes a path and a `random.Random`, and changes the file there.
"""

import io
import json
import pickle
import struct
import zipfile
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np

UNSIGNED = {"dataset_id", "dataset_size"}
CHECKSUMS = ("sha256", "record_sha256", "metadata_sha256")
SIGNATURES = (b"\x89HDF", b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"BTHD", b"BTLF", b"GCOL")
SIGNATURES += (b"TREE", b"SNOD", b"HEAP")
NUMBERS = (0, 1, -1, 2, 127, 128, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1)
EVIL = "a\x1b]0;t\x07\x9b2J\u202e\n\ud800$\\frac$<script>"
JUNK = (b"\xff", "x" * 70_000, -1, 10**18, np.nan, [], [[1.0]], "[" * 3000, "{}", "null")
SAID = (None, True, "", "a/b", EVIL, "[" * 3000, -1, 0, 1, 10**9, 10**30, 1e999, 0.5, [], {}, [[]])


# -- any file --------------------------------------------------------------------------------------


def flip_anywhere(path, rng):
    content = bytearray(path.read_bytes()) or bytearray(1)
    for _ in range(rng.choice((1, 1, 2, 16))):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def truncate(path, rng):
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def blank(path, rng):
    content = bytearray(path.read_bytes()) or bytearray(1)
    start, count = rng.randrange(len(content)), rng.choice((1, 64, 4096))
    content[start : start + count] = bytes(len(content[start : start + count]))
    path.write_bytes(content)


def number(path, rng):
    """A length, offset or count that is none."""
    content = bytearray(path.read_bytes())
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(NUMBERS) % 2 ** (8 * size)
    place = rng.randrange(max(1, len(content) - size))
    content[place : place + size] = value.to_bytes(size, rng.choice(("little", "big")))
    path.write_bytes(content)


def repeat(path, rng):
    """A part again, at another place."""
    content = path.read_bytes()
    start = rng.randrange(len(content) + 1)
    part = content[start : start + rng.choice((1, 8, 64, 1024))] * rng.choice((1, 1, 2, 100))
    place = rng.randrange(len(content) + 1)
    path.write_bytes(content[:place] + part + content[place + rng.choice((0, len(part))) :])


def letters(path, rng):
    """Words of the formats, where they should not be."""
    words = (
        b"(",
        b"t",
        b"]",
        b"}",
        b"[",
        b'"',
        b"__metadata__",
        b"cos\nsystem\n(S'x'\ntR.",
        b"\x00",
    )
    content = path.read_bytes()
    place = rng.randrange(len(content) + 1)
    path.write_bytes(
        content[:place] + rng.choice(words) * rng.choice((1, 2, 3000)) + content[place:]
    )


BYTES = (flip_anywhere, truncate, blank, number, repeat, letters)


# -- HDF5 ------------------------------------------------------------------------------------------


def flip_structure(path, rng):
    content = bytearray(path.read_bytes())
    places = [i for s in SIGNATURES for i in _places(content, s)]
    start = rng.choice(places or [0])
    for _ in range(rng.choice((1, 2, 4))):
        content[min(len(content) - 1, start + rng.randrange(200))] = rng.randrange(256)
    path.write_bytes(content)


def _places(content, signature):
    place = content.find(signature)
    while place >= 0:
        yield place
        place = content.find(signature, place + 1)


def nodes(file):
    """The paths of all groups and arrays."""
    names = []
    file.visit(names.append)
    return names


def _arrays(file):
    return [name for name in nodes(file) if isinstance(file[name], h5py.Dataset)]


def remove(path, rng):
    with h5py.File(path, "r+") as file:
        del file[rng.choice(nodes(file))]


def retype(path, rng):
    with h5py.File(path, "r+") as file:
        name = rng.choice(_arrays(file))
        old = file[name][()]
        del file[name]
        kind = rng.randrange(6)
        if kind == 0:
            file.create_group(name)
        elif kind == 1:
            file[name] = ["text"] * len(old)
        elif kind == 2:
            file[name] = old.astype(rng.choice(("c16", "i1", "f2", ">f8", "S3")))
        elif kind == 3:
            file[name] = old[:-1] if rng.random() < 0.5 else old[None]
        elif kind == 4:
            file[name] = 3.0
        else:
            file[name] = h5py.SoftLink(rng.choice(("/", "/none", f"/{name}")))


def claim(path, rng):
    with h5py.File(path, "r+") as file:
        name = rng.choice(_arrays(file))
        dtype, tail = file[name].dtype, file[name].shape[1:]
        del file[name]
        rows = rng.choice((10**5, 10**9, 10**15))
        if rng.random() < 0.5:
            file.create_dataset(name, (rows, *tail), dtype, chunks=(1, *tail), compression="gzip")
        else:
            file.create_dataset(name, (21, 10**6, rows), dtype, chunks=(1, 1, 100))
        if rng.random() < 0.5:
            file[name.split("/")[0]].attrs["total_steps"] = rows


def attribute(path, rng):
    with h5py.File(path, "r+") as file:
        node = file if rng.random() < 0.5 else file[rng.choice(list(file))]
        names = [name for name in node.attrs if name not in UNSIGNED]
        name = rng.choice(names)
        kind = rng.randrange(3)
        if kind == 0:
            del node.attrs[name]
        elif kind == 1:
            node.attrs[name] = rng.choice(JUNK)
        else:
            node.attrs[name] = _scrambled(node.attrs[name], rng)


def odd_attribute(path, rng):
    """One of a kind that nobody expects, anywhere."""
    with h5py.File(path, "r+") as file:
        node = file if rng.random() < 0.3 else file[rng.choice(nodes(file))]
        odd = (h5py.Empty("f8"), file.ref, ["a", "b"], np.zeros((2, 3)), np.zeros(2, "c16"))
        node.attrs[rng.choice([*node.attrs, "new"])] = rng.choice(odd)


def _scrambled(value, rng):
    value = value.decode() if isinstance(value, bytes) else value
    if not isinstance(value, str) or not value:
        return np.asarray(value) * 2 + 1
    place = rng.randrange(len(value))
    return value[:place] + rng.choice('0x"]}-') + value[place + 1 :]


def said(path, rng):
    """JSON in an attribute says something else."""
    with h5py.File(path, "r+") as file:
        places = [file, *(file[name] for name in nodes(file)[:20])]
        found = [(n, k, v) for n in places for k, v in n.attrs.items() if isinstance(v, str)]
        found = [each for each in found if each[2][:1] in ("{", "[")]
        node, name, text = rng.choice(found)
        node.attrs[name] = said_otherwise(text, rng)


def unsign(path, rng):  # noqa: ARG001
    """Without checksums other changes are not found by them."""
    with h5py.File(path, "r+") as file:
        for node in [file, *(file[name] for name in nodes(file))]:
            for name in CHECKSUMS:
                node.attrs.pop(name, None)


def link(path, rng):
    with h5py.File(path, "r+") as file:
        place = rng.choice(nodes(file))
        target = rng.choice(["/", *nodes(file)])
        kinds = (h5py.SoftLink(f"/{target}"), h5py.ExternalLink(path.name, "/"), file[target])
        groups = [name for name in nodes(file) if isinstance(file[name], h5py.Group)]
        into = f"{rng.choice(groups)}/x{rng.randrange(100)}" if rng.random() < 0.6 else place
        if into == place:
            file.move(place, f"moved{rng.randrange(10**6)}")
        file[into] = rng.choice(kinds)


def values(path, rng):
    """Numbers that are none, infinite, or too large, and arrays of no rows."""
    with h5py.File(path, "r+") as file:
        name = rng.choice(_arrays(file))
        array = file[name][()]
        del file[name]
        if rng.random() < 0.3 or not array.size:
            file[name] = array[:0]
            return
        if array.dtype.kind == "f":
            array.reshape(-1)[rng.randrange(array.size)] = rng.choice(
                (np.nan, np.inf, 1e300, -1e38)
            )
        else:
            array = np.resize(array, rng.choice((array.shape, (3, *array.shape[1:]))))
        file[name] = array


def grow(path, rng):
    """More groups, levels or attributes than anybody needs."""
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        group = file[rng.choice([n for n in nodes(file) if isinstance(file[n], h5py.Group)])]
        kind = rng.randrange(4)
        if kind == 0:
            group.create_group("/".join(f"d{i}" for i in range(rng.choice((3, 40, 400)))))
        elif kind == 1:
            for i in range(rng.choice((10, 11_000))):
                group.create_group(f"n{i}")
        elif kind == 2:
            for i in range(rng.choice((10, 1100))):
                group.attrs[f"a{i}"] = i
        else:
            text = EVIL.encode(errors="replace").decode()
            group.create_group(text.replace("/", "").replace("\0", ""))


HDF5 = (
    *(
        flip_structure,
        remove,
        retype,
        claim,
        attribute,
        odd_attribute,
        said,
        said,
        unsign,
        unsign,
        link,
        values,
    ),
    *(values, grow),
)


# -- JSON ------------------------------------------------------------------------------------------


def said_otherwise(text, rng):
    """JSON with one value replaced, removed, wrapped or named otherwise; or no JSON."""
    if rng.random() < 0.1:
        return text[: rng.randrange(len(text) + 1)] + rng.choice(
            ("", "]", "{", "[" * 2000, "\\ud800")
        )
    try:
        found = json.loads(text)
    except ValueError:
        return text
    for _ in range(rng.choice((1, 1, 2, 5))):
        holder, key = _somewhere({"": found}, "", rng)
        kind = rng.randrange(4)
        if kind == 0 and holder is not None and isinstance(holder, dict):
            holder.pop(key, None)
        elif kind == 1 and isinstance(holder[key], list | dict) and holder[key]:
            holder[key] = [holder[key]]
        elif kind == 2 and isinstance(holder[key], list):
            holder[key] = holder[key] * rng.choice((0, 2, 100))
        else:
            holder[key] = rng.choice(SAID)
    return json.dumps(found)


def _somewhere(holder, key, rng):
    """A place in nested containers: what holds it, and where."""
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
        inner = holder[key]
        holder, key = (
            inner,
            rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner))),
        )
    return holder, key


def json_file(path, rng):
    path.write_text(said_otherwise(path.read_text(errors="replace"), rng))


# -- pickles ---------------------------------------------------------------------------------------

_NAMED = {name: code for name, code in vars(pickle).items() if name.isupper()}
_OPCODES = [code for code in _NAMED.values() if isinstance(code, bytes) and len(code) == 1]


def opcodes(path, rng):
    content = path.read_bytes()
    for _ in range(rng.choice((1, 2, 4))):
        place = rng.randrange(len(content) + 1)
        new = rng.choice(_OPCODES) * rng.choice((1, 1, 1, 2, 5000))
        if rng.random() < 0.3:
            new += rng.choice(NUMBERS).__mod__(2**64).to_bytes(8, "little")
        content = content[:place] + new + content[place + rng.choice((0, len(new))) :]
    path.write_bytes(content)


PICKLE = (opcodes, opcodes)


# -- checkpoints -----------------------------------------------------------------------------------


def checkpoint(path, rng):
    """The table of tensors, or the header in it, says something else."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    table, data = content[8 : 8 + size].decode(), content[8 + size :]
    found = json.loads(table)
    if rng.random() < 0.8:
        said_by = found["__metadata__"]
        name = rng.choice(list(said_by))
        said_by[name] = said_otherwise(said_by[name], rng)
        table = json.dumps(found)
    else:
        table = said_otherwise(table, rng)
    table = table.encode(errors="replace")
    path.write_bytes(struct.pack("<Q", len(table)) + table + data)


CHECKPOINT = (checkpoint, checkpoint)


# -- Parquet ---------------------------------------------------------------------------------------


def parquet(path, rng):
    """A column that is missing, of another type or length, or says nothing."""
    import pyarrow as arrow
    from pyarrow import parquet as files

    table = files.read_table(path)
    name = rng.choice(table.column_names)
    index, rows = table.column_names.index(name), table.num_rows
    kind = rng.randrange(6)
    if kind == 0:
        table = table.remove_column(index)
    elif kind == 1:
        table = table.slice(0, rng.randrange(rows + 1))
    elif kind == 2:
        table = arrow.concat_tables([table] * rng.choice((2, 50)))
    else:
        options = [
            None,
            True,
            -1,
            2**62,
            1.5,
            float("nan"),
            "x",
            EVIL[:4],
            b"\x00" * 9,
            [1],
            [[1], []],
        ]
        new = arrow.array([rng.choice(options)] * rows)
        table = table.set_column(index, name, new)
    files.write_table(table, path, compression=rng.choice(("snappy", "zstd", "none")))


PARQUET = (parquet, parquet)


# -- bundles ---------------------------------------------------------------------------------------


def bundle(path, rng):
    """A change to one of the files in an archive, whose checksums are true again."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice([name for name in files if Path(name).suffix in IN_BUNDLES])
    aside = path.with_suffix(f".aside{Path(name).suffix}")
    aside.write_bytes(files[name])
    rng.choice(BYTES if rng.random() < 0.3 else IN_BUNDLES[aside.suffix])(aside, rng)
    files[name] = aside.read_bytes()
    aside.unlink()
    files["SHA256SUMS"] = "".join(
        f"{sha256(data).hexdigest()}  {n}\n" for n, data in files.items() if n != "SHA256SUMS"
    ).encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for n, data in files.items():
            archive.writestr(n, data)
    path.write_bytes(stream.getvalue())


IN_BUNDLES = {".hdf5": HDF5, ".safetensors": CHECKPOINT, ".json": (json_file,), ".csv": BYTES}
BUNDLE = (bundle, bundle)
