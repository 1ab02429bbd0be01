"""Pictures in folders: read through the graph that serves pictures, divided by content, mixed into the training split."""

import csv
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.conftest import read_result
from trainer.cli import main
from trainer.data.divide import mix_in
from trainer.data.folder import read_folder
from trainer.data.load import Extra, load_splits
from trainer.data.split import DataError, Split
from trainer.errors import ExitCode

SUFFIXES = ("png", "jpg", "bmp")


def draw(image: np.ndarray, side: int = 84) -> Image.Image:
    """A digit of MNIST's form as a drawing of `side` x `side` pixels, dark on light."""
    return Image.fromarray(255 - image).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")


def write_pictures(folder: Path, split: Split, count: int) -> None:
    """Write the first `count` digits in folders named by digit, in several formats and sizes."""
    for position, (image, label) in enumerate(zip(split.images[:count], split.labels[:count], strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        suffix = SUFFIXES[position % len(SUFFIXES)]
        draw(image, side=60 + position % 5 * 20).save(folder / str(label) / f"{position:03}.{suffix}")


def read_all(folder: Path) -> Split:
    """All pictures of a folder, none held out."""
    return read_folder(folder, held_out_share=0)[0]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, splits) -> Path:
    """A folder of 60 pictures, which the tests only read."""
    folder = tmp_path_factory.mktemp("drawn")
    write_pictures(folder, splits.test, 60)
    return folder


@pytest.fixture(scope="module")
def drawn_split(drawn: Path) -> Split:
    """The pictures of `drawn`, as they are read."""
    return read_all(drawn)


@pytest.fixture
def folder(tmp_path: Path, splits) -> Path:
    """A folder of 20 pictures, for a test to change."""
    write_pictures(tmp_path / "pictures", splits.test, 20)
    return tmp_path / "pictures"


def test_pictures_are_prepared_by_the_graph_that_serves_pictures(
    drawn: Path, drawn_split: Split, normalize_files
) -> None:
    paths = sorted(drawn.rglob("*.*"))
    served = normalize_files(*(path.read_bytes() for path in paths)).images.numpy()
    expected = {(image.tobytes(), int(path.parent.name)) for image, path in zip(served, paths, strict=True)}
    assert {(image.tobytes(), int(label)) for image, label in zip(*_arrays(drawn_split), strict=True)} == expected


def _arrays(split: Split) -> tuple[np.ndarray, np.ndarray]:
    return split.images, split.labels


def test_a_table_of_files_and_labels_gives_the_same_as_folders(drawn: Path, drawn_split: Split, tmp_path: Path) -> None:
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["label", "file", "writer"])
        for position, path in enumerate(sorted(drawn.rglob("*.*"))):
            shutil.copy(path, tmp_path / f"{position}{path.suffix}")
            rows.writerow([path.parent.name, f"{position}{path.suffix}", "x"])
    assert read_all(tmp_path).digest == drawn_split.digest


def test_names_copies_and_hidden_files_change_nothing(folder: Path) -> None:
    before = read_all(folder).digest
    for path in sorted(folder.rglob("*.png")):
        shutil.copy(path, path.with_name(f"copy-of-{path.name}"))
        path.rename(path.with_name(f"renamed-{path.name}"))
    (folder / "3" / ".DS_Store").write_bytes(b"not a picture")
    (folder / ".git").mkdir()
    (folder / "notes.txt").write_text("files beside the folders are not read")
    assert read_all(folder).digest == before


def test_damaged_files_are_named_all_but_a_few(folder: Path) -> None:
    damaged = sorted(folder.rglob("*.*"))[:7]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cannot be decoded.*; and 2 more") as rejection:
        read_all(folder)
    assert all(str(path) in str(rejection.value) for path in damaged[:5])


def test_a_picture_without_a_digit_is_named(folder: Path) -> None:
    Image.new("RGB", (50, 50), "white").save(folder / "0" / "blank.png")
    with pytest.raises(DataError, match=r"blank\.png: no digit can be located"):
        read_all(folder)


def test_one_image_with_two_labels_is_rejected_and_both_files_are_named(folder: Path) -> None:
    source = sorted((folder / "4").iterdir())[0]
    shutil.copy(source, folder / "9" / f"wrong{source.suffix}")
    with pytest.raises(DataError, match=rf"wrong{source.suffix} has the label 9.*{source.name} with the label 4"):
        read_all(folder)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,digit\na.png,1\n", "expected the columns file and label"),
        ("file,label\nabsent.png,1\n", r"line 2: there is no file .*absent\.png"),
        ("file,label\na.png,12\n", r"line 2: label '12'; expected 0 to 9"),
        ("file,label\na.png\n", r"line 2: label ''; expected 0 to 9"),
        ("file,label\n", "no pictures"),
        ("", "expected the columns file and label"),
    ],
)
def test_a_wrong_table_is_rejected_with_the_line(tmp_path: Path, table: str, message: str) -> None:
    Image.new("RGB", (50, 50), "white").save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        read_all(tmp_path)


def test_a_folder_that_is_missing_empty_or_not_named_by_digits_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_all(tmp_path / "absent")
    with pytest.raises(DataError, match="no pictures; expected them in folders named 0 to 9"):
        read_all(tmp_path)
    (tmp_path / "seven").mkdir()
    with pytest.raises(DataError, match="seven: expected folders named 0 to 9"):
        read_all(tmp_path)


def test_a_copy_in_another_format_is_never_on_the_other_side(folder: Path) -> None:
    for path in sorted(folder.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
    train, test = read_folder(folder)
    assert len(train) + len(test) == 20
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


def test_a_picture_stays_on_its_side_when_others_are_added(drawn: Path, tmp_path: Path) -> None:
    for path in sorted(drawn.rglob("*.*"))[::2]:
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.parent.name)
    few, all_of_them = (
        [{image.tobytes() for image in side.images} for side in read_folder(f)] for f in (tmp_path, drawn)
    )
    assert few[0] < all_of_them[0]
    assert few[1] < all_of_them[1]
    assert 0.1 < len(all_of_them[1]) / 60 < 0.35


@pytest.mark.parametrize(("examples", "share"), [(5, 0.5), (100, 0.2), (300, 0.1)])
def test_extra_examples_get_their_share_and_all_are_used_equally_often(splits, examples: int, share: float) -> None:
    extra = Split(splits.test.images[:examples], splits.test.labels[:examples])
    mixed = mix_in(splits.train, extra, share)
    added = mixed.images[len(splits.train) :]
    assert len(added) / len(mixed) == pytest.approx(share, abs=0.001)
    counts = [sum(np.array_equal(image, other) for other in added) for image in extra.images]
    assert max(counts) - min(counts) <= 1
    assert mixed.digest == mix_in(splits.train, extra, share).digest


def test_extra_pictures_are_mixed_into_training_and_a_part_of_them_is_held_out(drawn: Path) -> None:
    plain = load_splits("optdigits", Path("unused"), 180)
    splits = load_splits("optdigits", Path("unused"), 180, extra=Extra(drawn, 0.25))
    assert len(splits.train) == pytest.approx(len(plain.train) / 0.75, abs=1)
    assert splits.extra
    trained_on = {image.tobytes() for image in splits.train.images}
    assert not trained_on & {image.tobytes() for image in splits.extra.images}
    assert plain.test.digest == splits.test.digest
    assert plain.validation.digest == splits.validation.digest
    assert splits.digests.keys() == {"train", "validation", "test", "extra"}


def test_extra_pictures_and_their_weight_are_part_of_what_a_resumed_run_must_have_again(folder: Path) -> None:
    def identity(share: float) -> str:
        return load_splits("optdigits", Path("unused"), 180, extra=Extra(folder, share)).digests["train"]

    before = identity(0.2)
    assert identity(0.2) == before
    assert identity(0.3) != before
    next(folder.rglob("*.png")).unlink()
    assert identity(0.2) != before


def test_an_extra_picture_that_is_a_test_image_is_rejected(tmp_path: Path, splits) -> None:
    (tmp_path / str(splits.test.labels[3])).mkdir()
    # A picture in MNIST's form already is taken as it is.
    Image.fromarray(splits.test.images[3]).save(tmp_path / str(splits.test.labels[3]) / "a.png")
    with pytest.raises(DataError, match=r"first: test image 3|all held out"):
        load_splits("optdigits", Path("unused"), 180, extra=Extra(tmp_path, 0.2))


def test_a_run_on_extra_pictures_records_them(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.evaluation.figures.save_figures", lambda *_: None)
    monkeypatch.setattr("trainer.steps.evaluate.show_in_tensorboard", lambda *_, **__: None)
    command = f"train --artifacts {tmp_path} --run r --epochs 1 --model mlp --pen-weight 0 --no-publish"
    assert main([*command.split(), "--extra-data", str(drawn), "--extra-weight", "0.3"]) == ExitCode.OK
    assert "Extra pictures: " in capsys.readouterr().out
    result = read_result(tmp_path / "runs" / "r")
    assert result["extra"]["examples"] > 5
    assert "30 % of the training examples" in result["facts"]["extra pictures"]


def test_a_folder_is_a_data_set_of_its_own(tmp_path: Path, splits, capsys: pytest.CaptureFixture[str]) -> None:
    for position, (image, label) in enumerate(zip(splits.train.images[:200], splits.train.labels, strict=False)):
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / str(label) / f"{position}.png")
    assert main(["data", "verify", "--dataset", "folder", "--data-dir", str(tmp_path)]) == ExitCode.OK
    sizes = re.match(r"folder: (\d+) training and (\d+) test examples are sound and disjoint", capsys.readouterr().out)
    assert sizes
    assert sum(map(int, sizes.groups())) == 200


def test_a_picture_is_read_whatever_its_name_says(tmp_path: Path, splits) -> None:
    content = io.BytesIO()
    draw(splits.test.images[0]).save(content, "jpeg")
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "no-suffix").write_bytes(content.getvalue())
    assert len(read_all(tmp_path)) == 1
