"""Pictures of digits in a folder, brought to MNIST's form by the same graph that serves pictures.

    FOLDER/0/ ... FOLDER/9/     pictures of each digit: PNG, JPEG, BMP or GIF, of any size, in folders below too
    FOLDER/labels.csv           in place of these folders: the columns file,label; files are relative to FOLDER

Hidden files are not read.
"""

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from serving.contract import CLASSES
from trainer.data.split import DataError, Split
from trainer.pictures.normalize import Normalized, normalize

LABELS_FILE = "labels.csv"

HELD_OUT_SHARE = 0.2
"""Share of the pictures that is never trained on, so that they can be tested with."""

PROBLEMS_SHOWN = 5
"""Files that an error names; it counts the others."""

FILES_PER_CALL = 64
"""Files that one call of the graph prepares; a signal is handled between two calls."""


def read_folder(folder: Path, held_out_share: float = HELD_OUT_SHARE) -> tuple[Split, Split]:
    """Read all pictures of a folder, and divide them into those to train on and those to test with.

    The SHA-256 of a file decides on which side its picture is, so it stays there when others are added. Files that give
    the same image count as one picture, so no copy is on the other side.

    Returns:
        The pictures to train on, and about `held_out_share` of them to test with. Their order depends on the files'
        content, not on the names.

    Raises:
        DataError: there are no pictures, files cannot be read or hold no digit, or one image has two labels. The message
            names the files.
    """
    labelled = list(_labelled_files(folder))
    if not labelled:
        raise DataError(f"{folder}: no pictures; expected them in folders named 0 to 9, or a table {LABELS_FILE}")
    contents = [_read(path) for path, _ in labelled]
    images = _normalize(contents, [path for path, _ in labelled])
    hashes = [hashlib.sha256(content).digest() for content in contents]
    pictures: dict[bytes, tuple[int, Path]] = {}
    for position in sorted(range(len(labelled)), key=hashes.__getitem__):
        path, label = labelled[position]
        first, first_path = pictures.setdefault(images[position].tobytes(), (position, path))
        if label != labelled[first][1]:
            raise DataError(
                f"{path} has the label {label}, but the same image is in {first_path} with the label {labelled[first][1]}"
            )
    sides: tuple[list[int], list[int]] = ([], [])
    for position, _ in pictures.values():
        is_held_out = int.from_bytes(hashes[position][:8], "big") < held_out_share * 2**64
        sides[is_held_out].append(position)
    labels = np.array([label for _, label in labelled], np.uint8)
    kept, held_out = (Split(images[side], labels[side]) for side in sides)
    return kept, held_out


def folder_fingerprint(folder: Path) -> str:
    """Return the SHA-256 of the set of a folder's pictures and labels.

    It depends on no name and no order, and decodes no picture.

    Raises:
        DataError: the folder, the table or a file cannot be read.
    """
    digests = {hashlib.sha256(bytes([label]) + _read(path)).digest() for path, label in _labelled_files(folder)}
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _labelled_files(folder: Path) -> Iterator[tuple[Path, int]]:
    return _from_table(folder / LABELS_FILE) if (folder / LABELS_FILE).is_file() else _from_folders(folder)


def _from_folders(folder: Path) -> Iterator[tuple[Path, int]]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected one that holds pictures in folders named 0 to 9")
    for child in sorted(folder.iterdir()):
        if not child.is_dir() or _is_hidden(child, folder):
            continue
        if child.name not in [str(digit) for digit in range(CLASSES)]:
            raise DataError(f"{child}: expected folders named 0 to 9, each with pictures of that digit")
        for path in sorted(child.rglob("*")):
            if path.is_file() and not _is_hidden(path, folder):
                yield path, int(child.name)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") or part == "Thumbs.db" for part in path.relative_to(folder).parts)


def _from_table(table: Path) -> Iterator[tuple[Path, int]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"file", "label"} <= set(rows.fieldnames or ()):
                raise DataError(f"{table}: its first line is {rows.fieldnames}; expected the columns file and label")
            for row in rows:
                path, label = table.parent / (row["file"] or ""), row["label"] or ""
                if not path.is_file():
                    raise DataError(f"{table}, line {rows.line_num}: there is no file {path}")
                if label.strip() not in [str(digit) for digit in range(CLASSES)]:
                    raise DataError(f"{table}, line {rows.line_num}: label {label!r}; expected 0 to {CLASSES - 1}")
                yield path, int(label)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as a table: {error}") from error


def _normalize(contents: list[bytes], paths: list[Path]) -> np.ndarray:
    """Bring the contents of N picture files to MNIST's form, uint8 [N, 28, 28].

    Raises:
        DataError: naming the files that cannot be decoded, or hold no digit.
    """
    batches = [contents[start : start + FILES_PER_CALL] for start in range(0, len(contents), FILES_PER_CALL)]
    parts = [_prepare(tf.constant(batch)) for batch in batches]
    images = np.concatenate([part.images.numpy() for part in parts])
    problems = [problem.decode() for part in parts for problem in part.problem.numpy()]
    reasons = [
        problem or ("" if image.any() else "no digit can be located in it")
        for image, problem in zip(images, problems, strict=True)
    ]
    bad = [f"{path}: {reason}" for path, reason in zip(paths, reasons, strict=True) if reason]
    if bad:
        others = f"; and {len(bad) - PROBLEMS_SHOWN} more" if len(bad) > PROBLEMS_SHOWN else ""
        raise DataError("; ".join(bad[:PROBLEMS_SHOWN]) + others)
    return images


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def _prepare(encoded: tf.Tensor) -> Normalized:
    return normalize(encoded)
