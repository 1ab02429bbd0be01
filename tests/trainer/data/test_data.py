"""Data sets: reading, verification and splits."""

import gzip
import shutil
import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.conftest import read_result, run_trainer, write_idx
from trainer.cli import main
from trainer.data.divide import hold_back
from trainer.data.idx import FILES, read_idx, read_idx_folder
from trainer.data.load import load_splits, read_dataset
from trainer.data.split import MNIST_FINGERPRINTS, DataError, Split, verify
from trainer.errors import ExitCode


@pytest.fixture
def folder(tmp_path: Path, splits) -> Path:
    """A sound folder of four IDX files, one of them gzipped."""
    for name, split in (("train", splits.train), ("test", splits.test)):
        for file, array in zip(FILES[name], (split.images, split.labels), strict=True):
            write_idx(tmp_path / file, array)
    images = tmp_path / FILES["test"][0]
    (tmp_path / f"{images.name}.gz").write_bytes(gzip.compress(images.read_bytes()))
    images.unlink()
    return tmp_path


def test_an_idx_folder_is_read_as_it_was_written(folder: Path, splits) -> None:
    train, test = read_dataset("idx", folder)
    assert np.array_equal(train.images, splits.train.images)
    assert np.array_equal(train.labels, splits.train.labels)
    assert test.fingerprint == splits.test.fingerprint


def test_splits_are_disjoint_and_complete(folder: Path) -> None:
    train, _ = read_idx_folder(folder)
    parts = load_splits("idx", folder, validation_size=100)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (len(train) - 100, 100, 360)
    both = Split(
        *(np.concatenate([getattr(parts.train, a), getattr(parts.validation, a)]) for a in ("images", "labels"))
    )
    assert both.fingerprint == train.fingerprint
    images = [{image.tobytes() for image in part.images} for part in (parts.train, parts.validation, parts.test)]
    assert not images[0] & images[1]
    assert not images[0] & images[2]
    assert not images[1] & images[2]


def test_data_sorted_by_digit_gives_a_validation_split_with_the_same_share_of_each_digit(splits) -> None:
    """A cut at the end of sorted data left whole digits out of validation, and trained without them."""
    order = np.argsort(splits.train.labels, kind="stable")
    train = Split(splits.train.images[order], splits.train.labels[order])
    kept, validation = hold_back(train, 200)
    share = np.bincount(validation.labels, minlength=10) / 200
    assert np.abs(share - np.bincount(train.labels, minlength=10) / len(train)).max() < 0.01
    assert (np.diff(kept.labels.astype(int)) >= 0).all(), "the parts keep the stored order"


def test_the_validation_split_is_the_same_every_time_whatever_the_state_of_numpy(splits) -> None:
    np.random.seed(1)
    first = hold_back(splits.train, 100)[1]
    np.random.seed(2)
    assert hold_back(splits.train, 100)[1].digest == first.digest


@pytest.mark.parametrize("validation_size", [9, 1250])
def test_a_validation_size_that_leaves_a_part_without_room_for_each_digit_is_rejected(
    folder: Path, validation_size: int
) -> None:
    with pytest.raises(DataError, match=rf"validation_size is {validation_size} of 1257 .* one of each digit"):
        load_splits("idx", folder, validation_size)


def test_a_digit_with_one_training_example_is_named(splits) -> None:
    keep = np.flatnonzero(splits.train.labels != 7)
    keep = np.append(keep, np.flatnonzero(splits.train.labels == 7)[0])
    with pytest.raises(DataError, match=r"1 example\(s\) of digit 7"):
        hold_back(Split(splits.train.images[keep], splits.train.labels[keep]), 100)


def test_a_digit_that_is_too_rare_for_the_validation_size_is_named(splits) -> None:
    keep = np.flatnonzero(splits.train.labels != 7)
    keep = np.append(keep, np.flatnonzero(splits.train.labels == 7)[:2])
    with pytest.raises(DataError, match=r"validation, with a validation_size of 20: no example of digit\(s\) 7"):
        hold_back(Split(splits.train.images[keep], splits.train.labels[keep]), 20)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def put_text(path: Path) -> None:
    path.write_text("<html>404 not found</html>")


def put_labels_file(path: Path) -> None:
    shutil.copy(path.parent / FILES["test"][1], path)


def put_wide_images(path: Path) -> None:
    write_idx(path, np.ones((1257, 32, 32)))


def put_wrong_label(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] = 10
    path.write_bytes(content)


TRAIN_IMAGES, TRAIN_LABELS = FILES["train"]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (TRAIN_IMAGES, truncate, "truncated"),
        (TRAIN_IMAGES, lengthen, "too long"),
        (TRAIN_IMAGES, remove, "missing"),
        (TRAIN_IMAGES, empty, "not an IDX file"),
        (TRAIN_IMAGES, put_text, "not an IDX file"),
        (TRAIN_IMAGES, put_labels_file, "expected images"),
        (TRAIN_IMAGES, put_wide_images, "expected images"),
        (TRAIN_LABELS, truncate, "truncated"),
        (TRAIN_LABELS, put_labels_file, "360 labels for the 1257 images"),
        (TRAIN_LABELS, put_wrong_label, "label 10 at position 1256"),
        (f"{FILES['test'][0]}.gz", truncate, "truncated or damaged"),
    ],
)
def test_a_damaged_file_is_rejected_by_name(folder: Path, name: str, damage, message: str) -> None:
    damage(folder / name)
    with pytest.raises(DataError, match=message) as refusal:
        load_splits("idx", folder, validation_size=100)
    assert name in str(refusal.value)


def test_damaged_data_exits_with_3_and_is_recorded_before_any_training(folder: Path, tmp_path: Path) -> None:
    truncate(folder / TRAIN_IMAGES)
    flags = ("--dataset", "idx", "--data-dir", folder, "--artifacts", tmp_path / "out", "--run", "r")
    done = run_trainer("train", *flags)
    assert done.returncode == ExitCode.DATA
    assert TRAIN_IMAGES in done.stderr
    assert read_result(tmp_path / "out" / "runs" / "r")["exit_code"] == ExitCode.DATA
    assert not list((tmp_path / "out" / "models" / "digits").iterdir())


def test_a_header_with_dimensions_beyond_memory_is_rejected_without_allocating(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    bomb.write_bytes(b"\0\0\x08\x03" + b"\xff" * 12 + b"\0" * 100)
    with pytest.raises(DataError, match="truncated"):
        read_idx(bomb)


def test_a_test_image_among_the_training_images_is_rejected(folder: Path) -> None:
    images = read_idx(folder / TRAIN_IMAGES).copy()
    images[5] = read_idx(folder / f"{FILES['test'][0]}.gz")[7]
    write_idx(folder / TRAIN_IMAGES, images)
    with pytest.raises(DataError, match="first: test image 7"):
        load_splits("idx", folder, validation_size=100)


def test_an_image_in_both_the_training_and_the_validation_split_is_rejected(splits) -> None:
    twice = Split(np.tile(splits.train.images, (2, 1, 1)), np.tile(splits.train.labels, 2))
    with pytest.raises(DataError, match="validation images are training images too"):
        hold_back(twice, 100)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.ones((10, 28, 28), np.float32), np.arange(10, dtype=np.uint8), "images are float32"),
        (np.ones((10, 28, 28), np.uint8), np.arange(10), "labels are int64"),
        (np.ones((10, 28, 28), np.uint8), np.zeros(10, np.uint8), r"no example of digit\(s\) 1, 2"),
        (np.zeros((10, 28, 28), np.uint8), np.arange(10, dtype=np.uint8), "image 0 is blank"),
    ],
)
def test_a_split_that_breaks_the_contract_is_rejected(images: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        verify(Split(images, labels), "train")


def test_a_validation_size_above_the_training_examples_is_rejected(folder: Path) -> None:
    with pytest.raises(DataError, match="only 1257 training examples"):
        load_splits("idx", folder, validation_size=1257)


def test_optdigits_is_prepared_as_mnist_was(splits) -> None:
    images = np.concatenate([splits.train.images, splits.validation.images, splits.test.images]).astype(float)
    assert len(images) == 1797
    for axis in (1, 2):
        occupied = images.any(axis=axis)
        extent = 28 - occupied.argmax(axis=1) - occupied[:, ::-1].argmax(axis=1)
        assert extent.max() <= 20
        profile = images.sum(axis=axis)
        centre = (profile * np.arange(28)).sum(axis=1) / profile.sum(axis=1)
        # Half a pixel of rounding, more only where the digit would leave the frame.
        assert np.abs(centre - 13.5).mean() < 0.5


def test_swapped_or_mislabelled_files_of_mnist_are_rejected_by_name(mnist_files: Path, tmp_path: Path) -> None:
    for file in mnist_files.glob("*.gz"):
        shutil.copy(file, tmp_path)
    train, test = ([tmp_path / f"{name}.gz" for name in FILES[split]] for split in ("train", "test"))
    labels = read_idx(train[1])
    write_idx(tmp_path / FILES["train"][1], np.roll(labels, 1))
    with pytest.raises(DataError, match=r"train-labels.*not the labels of MNIST's train images"):
        read_idx_folder(tmp_path)
    (tmp_path / FILES["train"][1]).unlink()
    for one, other in zip(train, test, strict=True):
        keep = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(keep)
    with pytest.raises(DataError, match=r"train-images.*these are MNIST's test images"):
        read_idx_folder(tmp_path)


@pytest.mark.slow
def test_mnist_through_tensorflow_datasets_is_the_original_and_damage_is_rejected(
    mnist_files: Path, tmp_path: Path
) -> None:
    manual = tmp_path / "data" / "downloads" / "manual"
    manual.mkdir(parents=True)
    for file in mnist_files.glob("*.gz"):
        shutil.copy(file, manual)
    labels = manual / "train-labels-idx1-ubyte.gz"
    sound = labels.read_bytes()
    labels.write_bytes(sound[:-1])
    done = run_trainer("data", "prepare", "--data-dir", tmp_path / "data")
    assert done.returncode == ExitCode.DATA
    assert labels.name in done.stderr

    labels.write_bytes(sound)
    done = run_trainer("data", "prepare", "--data-dir", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    splits = load_splits("mnist", tmp_path / "data", validation_size=5000)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (55_000, 5_000, 10_000)
    assert splits.test.fingerprint == MNIST_FINGERPRINTS["test"]

    (records,) = (tmp_path / "data" / "mnist").rglob("mnist-train.tfrecord*")
    content = bytearray(records.read_bytes())
    content[len(content) // 2] ^= 1
    records.write_bytes(content)
    done = run_trainer("data", "verify", "--data-dir", tmp_path / "data")
    assert done.returncode == ExitCode.DATA
    assert "the train split is damaged" in done.stderr


@pytest.mark.slow
def test_two_workers_that_prepare_one_folder_at_the_same_time_both_succeed(mnist_files: Path, tmp_path: Path) -> None:
    """tensorflow-datasets renames its result into place, which failed for the second worker: exit 3, no retry."""
    shutil.copytree(mnist_files, tmp_path / "downloads" / "manual")
    with ThreadPoolExecutor() as pool:
        command = ("data", "prepare", "--data-dir", tmp_path)
        workers = [pool.submit(run_trainer, *command) for _ in range(2)]
    assert [worker.result().returncode for worker in workers] == [0, 0], [worker.result().stderr for worker in workers]


def test_missing_files_are_named(tmp_path: Path) -> None:
    done = run_trainer("data", "verify", "--dataset", "idx", "--data-dir", tmp_path / "nowhere")
    assert done.returncode == ExitCode.DATA
    assert "train-images-idx3-ubyte: missing" in done.stderr


def test_mnist_without_a_network_is_refused_at_once_with_what_to_do(tmp_path: Path, monkeypatch, capfd) -> None:
    """The builder retried for a minute and printed a traceback of urllib3 for each attempt."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # Nobody listens, and no other process can take the port.
        monkeypatch.setenv("https_proxy", "http://{}:{}".format(*closed.getsockname()))
        monkeypatch.setattr(urllib.request, "_opener", None)  # It keeps the proxies of this process's first request.
        # A retry may help: the network of a new pod may need some seconds.
        assert main(["data", "prepare", "--artifacts", str(tmp_path)]) == ExitCode.IO
    error = capfd.readouterr().err
    assert "Connection refused" in error
    assert f"t10k-labels-idx1-ubyte.gz into {tmp_path}/data/downloads/manual, or train on the embedded digits" in error
    assert "Traceback" not in error
    assert "urllib3" not in error
    assert not list(tmp_path.rglob("*incomplete*"))
