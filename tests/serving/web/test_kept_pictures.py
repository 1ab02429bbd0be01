"""Corrected pictures on the disk: what is kept, its limits, and what the trainer reads."""

import io
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.client.results import PicturePrediction
from serving.contract import MAX_PICTURE_BYTES
from serving.web.kept_pictures import FullError, KeptPictures
from tests.serving.page_server import error_of, request, start_web
from tests.serving.scripted_server import NOT_A_PICTURE, scripted_server
from trainer.data.folder import read_folder
from trainer.data.samples import write_samples
from trainer.data.split import Split

PNG = {"content-type": "image/png"}
GPS = 0x8825
"""EXIF's tag of the place."""


def prediction_of(seen: int) -> PicturePrediction:
    return PicturePrediction(
        digit=1,
        confidence=0.6,
        probabilities=np.full(10, 0.1, np.float32),
        version=20261122134501,
        normalized=np.full((28, 28), seen, np.uint8),
        problem="",
        found=1,
        box=np.zeros(4, np.float32),
    )


def pictures_in(folder: Path) -> dict[str, bytes]:
    """The kept pictures by their class folder's name."""
    return {path.parent.name: path.read_bytes() for path in sorted(folder.glob("[0-9]/*"))}


@pytest.fixture(scope="module")
def target():
    with scripted_server(max_message_bytes=-1) as target:
        yield target


@pytest.fixture
def site(target, tmp_path):
    """The port of a page that collects, and the folder."""
    with start_web(target, "--collect", str(tmp_path / "kept")) as (_, port):
        yield port, tmp_path / "kept"


def test_the_trainer_reads_the_kept_pictures_with_their_labels(tmp_path):
    images = np.zeros((3, 28, 28), np.uint8)
    for number, image in enumerate(images):
        image[4:24, 10 + number : 14 + number] = 255
        image[4:8, 4:14] = 255
    samples = write_samples(Split(images, np.array([1, 7, 7], np.uint8)), tmp_path / "samples", 3)
    kept = KeptPictures(tmp_path / "kept")
    for number, (path, digit) in enumerate(zip(samples, (1, 7, 7), strict=True)):
        kept.keep(path.read_bytes(), digit, prediction_of(number + 1))
    train, held_out = read_folder(tmp_path / "kept")
    assert sorted([*train.labels.tolist(), *held_out.labels.tolist()]) == [1, 7, 7]


def test_the_answer_beside_a_picture_says_what_which_version_predicted(tmp_path):
    KeptPictures(tmp_path).keep(b"\xff\xd8\xff\xd9", 7, prediction_of(5))
    (picture,) = tmp_path.glob("7/*")
    answer = json.loads((tmp_path / ".answers" / f"{picture.stem}.json").read_text())
    assert picture.suffix == ".jpg"
    assert (answer["digit"], answer["predicted"], answer["version"]) == (7, 1, 20261122134501)


def test_the_digit_named_last_counts_and_a_picture_is_kept_once(tmp_path):
    kept = KeptPictures(tmp_path)
    for digit in (7, 7, 1):
        assert kept.keep(b"BM", digit, prediction_of(5)) == 1
    (picture,) = tmp_path.glob("[0-9]/*")
    assert picture.parent.name == "1"
    assert json.loads((tmp_path / ".answers" / f"{picture.stem}.json").read_text())["digit"] == 1


@pytest.mark.parametrize("limits", [{"max_pictures": 2}, {"max_bytes": 8}])
def test_beyond_a_limit_nothing_more_is_kept_but_a_label_can_change(tmp_path, limits):
    kept = KeptPictures(tmp_path, **limits)
    for seen in (1, 2):
        kept.keep(b"1234", 0, prediction_of(seen))
    with pytest.raises(FullError, match="2 pictures"):
        kept.keep(b"1234", 0, prediction_of(3))
    assert kept.keep(b"1234", 5, prediction_of(2)) == 2
    assert len(list(tmp_path.glob("[0-9]/*"))) == len(list(tmp_path.glob(".answers/*"))) == 2


def test_a_failed_write_leaves_nothing_that_the_trainer_reads(tmp_path, monkeypatch):
    kept = KeptPictures(tmp_path)

    def fail(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        kept.keep(b"1234", 7, prediction_of(5))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_correction_is_kept_under_the_named_digit(site):
    port, folder = site
    status, _, body = request(port, "POST", "/corrections/7", b"\x01 as it is", PNG)
    assert (status, json.loads(body)) == (200, {"pictures": 1})
    assert pictures_in(folder) == {"7": b"\x01 as it is"}
    assert json.loads(request(port, "GET", "/corrections")[2]) == {"collects": True, "pictures": 1}


def test_a_photograph_is_kept_without_its_place(site):
    port, folder = site
    exif = Image.Exif()
    exif.get_ifd(GPS)[1] = "N"
    file = io.BytesIO()
    Image.new("L", (40, 30)).save(file, "JPEG", exif=exif)
    assert request(port, "POST", "/corrections/7", file.getvalue(), PNG)[0] == 200
    kept = Image.open(io.BytesIO(pictures_in(folder)["7"]))
    assert kept.size == (40, 30)
    assert not kept.getexif()


def test_a_damaged_file_whose_metadata_cannot_be_removed_is_not_kept(site):
    port, folder = site
    status, message = error_of(request(port, "POST", "/corrections/7", b"\x89PNG\r\n\x1a\n", PNG))
    assert (status, "metadata that cannot be removed" in message) == (422, True)
    assert pictures_in(folder) == {}


def test_a_prediction_alone_keeps_nothing(site):
    port, folder = site
    assert request(port, "POST", "/predict", b"\x01", PNG)[0] == 200
    assert pictures_in(folder) == {}


def test_without_the_flag_nothing_can_be_kept(target):
    with start_web(target) as (_, port):
        assert error_of(request(port, "POST", "/corrections/7", b"\x01", PNG))[0] == 404
        assert json.loads(request(port, "GET", "/corrections")[2]) == {"collects": False, "pictures": 0}


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/corrections/10", b"\x01", PNG, 404),
        ("/corrections/" + 5000 * "9", b"\x01", PNG, 404),
        ("/corrections/07", b"\x01", PNG, 404),
        ("/corrections/-1", b"\x01", PNG, 404),
        ("/corrections/..%2f..%2fetc", b"\x01", PNG, 405),
        ("/corrections/7", NOT_A_PICTURE, PNG, 422),
        ("/corrections/7", b"\x00 shows no ink", PNG, 422),
        ("/corrections/7", bytes(MAX_PICTURE_BYTES + 1), PNG, 413),
        ("/corrections/7", b"\x01", {"content-type": "text/plain"}, 415),
        ("/corrections/7", b"\x01", {}, 415),
        ("/corrections/7", b"\x01", {**PNG, "sec-fetch-site": "cross-site"}, 403),
        ("/corrections/7", b"\x01", {**PNG, "sec-fetch-site": "same-site"}, 403),
        ("/corrections/7", b"\x01", {**PNG, "host": "evil.example"}, 421),
    ],
)
def test_a_correction_that_is_invalid_or_from_another_site_keeps_nothing(site, path, body, headers, status):
    port, folder = site
    assert request(port, "POST", path, body, headers)[0] == status
    assert pictures_in(folder) == {}


def test_corrections_at_once_are_all_kept(site):
    port, folder = site
    barrier = threading.Barrier(8)

    def correct(number: int) -> int:
        barrier.wait(30)
        return request(port, "POST", f"/corrections/{number}", bytes([number]), PNG)[0]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(correct, range(1, 9))) == [200] * 8
    assert pictures_in(folder) == {str(number): bytes([number]) for number in range(1, 9)}


def test_a_folder_that_cannot_be_written_is_an_error_of_usage(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(AssertionError, match=r"--collect .*pictures cannot be kept there"),
        start_web("127.0.0.1:1", "--collect", str(tmp_path / "file")),
    ):
        pass
