"""Publishing: the gate, the export, its verification, and the rename."""

import dataclasses
import io
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from percent import percent
from tests.trainer.conftest import REPOSITORY
from tests.trainer.publisher import take_as_prepared
from tests.waiting import wait_until
from trainer.errors import ExitCode
from trainer.publishing.export import export_model
from trainer.publishing.gate import Gate, GateError, predict_version
from trainer.publishing.publish import find_published, publish
from trainer.publishing.verify_export import (
    WARM_UP_FILE,
    ArtifactError,
    VerificationError,
    Verify,
    fresh_process,
    main,
    verify,
    verify_in_fresh_process,
)
from trainer.publishing.versions import live_versions
from trainer.runs.signals import StoppedError, stoppable

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OPEN_GATE = Gate(min_accuracy=0.0, tolerance=1.0, significance=0.0)


def unverified(folder: Path, images: np.ndarray, probabilities: np.ndarray) -> dict[str, object]:  # noqa: ARG001
    """Take the place of the verification in tests of something else, and save seconds each."""
    return {}


def publish_to(
    model_dir: Path, trained, gate: Gate = OPEN_GATE, verify_it: Verify = unverified, keep_versions: int = 0
):
    return publish(
        trained.model,
        trained.evaluation,
        trained.test,
        model_dir=model_dir,
        gate=gate,
        now=NOW,
        keep_versions=keep_versions,
        metadata={"run": "r"},
        verify=verify_it,
    )


@pytest.fixture(scope="module", autouse=True)
def _pictures_taken_as_prepared() -> Iterator[None]:
    """In what these tests export: to load the preparation of pictures takes seconds each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.publishing.export.normalize", take_as_prepared)
        yield


@pytest.fixture(scope="module")
def published(tmp_path_factory, trained) -> Path:
    """A models folder with one version; not to be changed."""
    model_dir = tmp_path_factory.mktemp("models") / "digits"
    publish_to(model_dir, trained)
    return model_dir


@pytest.fixture
def model_dir(published: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(published, tmp_path / "digits"))


@pytest.fixture
def exported(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published / "20260102030405", tmp_path / "exported"))


def names(model_dir: Path) -> set[str]:
    return {child.name for child in model_dir.iterdir()}


def test_a_published_version_holds_everything_a_server_needs(published: Path, trained) -> None:
    assert names(published) == {".lock", "20260102030405"}
    version = published / "20260102030405"
    extra = version / "assets.extra"
    assert (version / "saved_model.pb").is_file()
    metadata = json.loads((extra / "digits.json").read_text())
    assert metadata["version"] == 20260102030405
    assert metadata["evaluation"]["accuracy"] == trained.evaluation.accuracy
    records = (extra / WARM_UP_FILE).read_bytes()
    sizes = []
    while records:
        (length,) = struct.unpack("<Q", records[:8])
        sizes.append(length)
        records = records[16 + length :]
    # The images of 1, 8, 32 and 128 digits, and little else; then 1 and 8 picture files.
    assert [size // 784 for size in sizes[:4]] == [1, 8, 32, 128]
    assert len(sizes) == 6
    assert accuracy_of(version, trained) == trained.evaluation.accuracy


def accuracy_of(version: Path, trained) -> float:
    return float((predict_version(version, trained.test.images).argmax(axis=1) == trained.test.labels).mean())


def test_gate_below_threshold_publishes_nothing(tmp_path: Path, trained) -> None:
    accuracy = trained.evaluation.accuracy
    with pytest.raises(GateError, match=f"test accuracy is {percent(accuracy)}, below the gate's minimum of 99.99 %"):
        publish_to(tmp_path / "digits", trained, Gate(min_accuracy=0.9999, tolerance=0.0))
    assert not (tmp_path / "digits").exists()


def test_gate_worse_than_served_by_more_than_the_tolerance_publishes_nothing(model_dir: Path, trained) -> None:
    served = trained.evaluation.accuracy
    worse = dataclasses.replace(trained, evaluation=dataclasses.replace(trained.evaluation, accuracy=served - 0.02))
    with pytest.raises(GateError, match=r"the served version, 20260102030405, has .* tolerance is 1.00 %"):
        publish_to(model_dir, worse, Gate(min_accuracy=0.0, tolerance=0.01))
    assert names(model_dir) == {".lock", "20260102030405"}
    assert publish_to(model_dir, worse, Gate(min_accuracy=0.0, tolerance=0.03)).served_before == 20260102030405


def test_gate_refuses_an_accuracy_that_is_not_a_number(tmp_path: Path, trained) -> None:
    unknown = dataclasses.replace(trained, evaluation=dataclasses.replace(trained.evaluation, accuracy=float("nan")))
    with pytest.raises(GateError, match="nan"):
        publish_to(tmp_path / "digits", unknown)


def test_gate_refuses_when_the_served_version_cannot_be_scored(model_dir: Path, trained) -> None:
    (model_dir / "20260102030405" / "variables" / "variables.index").unlink()
    with pytest.raises(GateError, match=r"20260102030405 cannot be compared .* rollback"):
        publish_to(model_dir, trained)
    assert names(model_dir) == {".lock", "20260102030405"}


def test_the_fresh_process_accepts_the_trainer_s_own_export_and_returns_what_it_measured(
    exported: Path, trained
) -> None:
    drawn = []
    expected = trained.test.images[:256], trained.evaluation.probabilities[:256]
    with fresh_process() as verify_there:
        measured = verify_there(exported, *expected, meanwhile=lambda: drawn.append("figures"))
    assert drawn == ["figures"]
    assert measured["examples"] == 256
    assert measured["warm_up_records"] == 6
    assert measured["largest_difference"] <= 1e-5


def test_a_version_predicts_with_the_temperature_of_its_evaluation(tmp_path: Path, trained) -> None:
    from trainer.evaluation.metrics import evaluate
    from trainer.evaluation.predict import compile_predict

    cool = evaluate(compile_predict(trained.model), trained.test, temperature=0.5)
    assert cool.confidence.mean() > trained.evaluation.confidence.mean()
    published = publish_to(tmp_path / "digits", dataclasses.replace(trained, evaluation=cool), verify_it=verify)
    assert published.check["largest_difference"] <= 1e-5
    metadata = json.loads((published.folder / "assets.extra" / "digits.json").read_text())
    assert metadata["evaluation"]["temperature"] == 0.5


def other_weights(folder: Path) -> None:
    """One weight changed by a little, its checksum right."""
    import tensorflow as tf

    prefix = str(folder / "variables" / "variables")
    reader = tf.train.load_checkpoint(prefix)
    tensors = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    (bias,) = (name for name, value in tensors.items() if getattr(value, "shape", None) == (10,))
    tensors[bias] = tensors[bias] + np.linspace(0, 0.1, 10, dtype=np.float32)
    order = sorted(tensors)
    values = [tf.constant(tensors[name]) for name in order]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=order, shape_and_slices=[""] * len(order), tensors=values)


def damaged_weights(folder: Path) -> None:
    path = folder / "variables" / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def no_graph(folder: Path) -> None:
    (folder / "saved_model.pb").unlink()


def damaged_warm_up(folder: Path) -> None:
    path = folder / "assets.extra" / WARM_UP_FILE
    path.write_bytes(path.read_bytes()[:-5])


def no_warm_up(folder: Path) -> None:
    (folder / "assets.extra" / WARM_UP_FILE).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (other_weights, "a probability differs from the trainer's by"),
        (damaged_weights, "DataLoss"),
        (no_graph, "does not exist"),
        (damaged_warm_up, "DataLoss"),
        (no_warm_up, "NotFound"),
    ],
)
def test_verification_refuses_files_that_do_not_predict_what_the_trainer_predicts(
    exported, trained, damage, message, tmp_path, capsys, monkeypatch
) -> None:
    damage(exported)
    # In this process, which saves ten seconds each; the next test runs the fresh process.
    expected = tmp_path / "expected.npz"
    np.savez(expected, images=trained.test.images[:256], probabilities=trained.evaluation.probabilities[:256])
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps([str(exported), str(expected)])))
    assert main() == 6
    assert message in capsys.readouterr().out


def test_verification_refuses_a_graph_that_accepts_other_shapes(tmp_path: Path, trained, monkeypatch) -> None:
    import tensorflow as tf

    ensure = tf.ensure_shape

    def ignore_images(tensor: tf.Tensor, shape: list) -> tf.Tensor:
        return tensor if tensor.name.startswith("images") else ensure(tensor, shape)

    with monkeypatch.context() as patch:
        patch.setattr("tensorflow.ensure_shape", ignore_images)
        # Moving an unsure image by a pixel needs three dimensions, and so it checks the shape too.
        patch.setattr("trainer.publishing.export.predict_logits", lambda model, images: model(images, training=False))
        export_model(trained.model, tmp_path / "exported", images=trained.test.images[:128], metadata={})
    images = trained.test.images[:7]
    probabilities = tf.nn.softmax(trained.model(images, training=False)).numpy()
    with pytest.raises(ArtifactError, match=r"serving_default accepts images of shape \[7, 28, 28, 1\]"):
        verify(tmp_path / "exported", images, probabilities)


def test_an_export_that_fails_verification_is_never_published(tmp_path: Path, trained, monkeypatch) -> None:
    def export_and_damage(model, folder: Path, **options) -> None:
        export_model(model, folder, **options)
        other_weights(folder)

    monkeypatch.setattr("trainer.publishing.publish.export_model", export_and_damage)
    with pytest.raises(ArtifactError, match="a probability differs") as refusal:
        publish_to(tmp_path / "digits", trained, verify_it=verify_in_fresh_process)
    assert refusal.value.exit_code == 6
    assert names(tmp_path / "digits") == {".lock"}


def test_a_disk_that_fills_up_in_the_export_is_an_os_error_and_publishes_nothing(tmp_path: Path, trained) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot write the SavedModel"):
            publish_to(tmp_path / "digits", trained)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path / "digits") == {".lock"}


def test_a_signal_inside_a_call_of_keras_is_not_lost_and_publishes_nothing(
    tmp_path: Path, trained, monkeypatch
) -> None:
    # Keras catches every exception around this function, KeyboardInterrupt included.
    name = "keras.src.models.functional.tree.assert_same_structure"

    def stop(*arguments: object) -> None:  # noqa: ARG001
        monkeypatch.setattr(name, lambda *_: None)  # A second signal would end this process.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

    monkeypatch.setattr(name, stop)
    with pytest.raises(StoppedError, match="stopped by SIGTERM"), stoppable():
        publish_to(tmp_path / "digits", trained)
    assert names(tmp_path / "digits") == {".lock"}


def test_two_publishers_at_once_both_publish_and_neither_overwrites(tmp_path: Path, trained) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: publish_to(tmp_path, trained), range(2)))
    assert {result.version for result in results} == {20260102030405, 20260102030406}
    assert {result.served_before for result in results} == {None, 20260102030405}
    for version in live_versions(tmp_path):
        assert accuracy_of(tmp_path / str(version), trained) == trained.evaluation.accuracy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere, so permissions cannot be tested as root")
def test_a_models_folder_without_permission_is_an_error_and_changes_nothing(tmp_path: Path, trained) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        publish_to(tmp_path / "digits", trained)
    tmp_path.chmod(0o700)
    assert not names(tmp_path)


def test_published_files_are_readable_for_all_whatever_the_umask(tmp_path: Path, trained, capsys) -> None:
    before = os.umask(0o077)
    try:
        folder = publish_to(tmp_path / "models" / "digits", trained).folder
    finally:
        os.umask(before)
    for path in (folder, *folder.rglob("*")):
        needed = 0o555 if path.is_dir() else 0o444
        assert path.stat().st_mode & needed == needed, path
    assert f"`chmod o+rx {tmp_path / 'models' / 'digits'} {tmp_path / 'models'}" in capsys.readouterr().err


def test_the_expected_predictions_are_computed_on_the_cpu_again(tmp_path: Path, trained) -> None:
    """A GPU's probabilities differ by more than the verification accepts; they must not fail it."""
    rounded = dataclasses.replace(trained.evaluation, probabilities=trained.evaluation.probabilities + np.float32(1e-4))
    published = publish_to(tmp_path / "digits", dataclasses.replace(trained, evaluation=rounded), verify_it=verify)
    assert published.check["largest_difference"] <= 1e-5


def test_a_verification_that_is_killed_or_takes_too_long_says_so_and_may_be_retried(exported: Path, trained) -> None:
    """Both were reported as exit 6, "a retry cannot help", with a line of TensorFlow's log as the reason."""
    images, probabilities = trained.test.images[:8], trained.evaluation.probabilities[:8]
    with pytest.raises(VerificationError, match=r"did not end within 0\.1 s") as refusal:
        verify_in_fresh_process(exported, images, probabilities, timeout_seconds=0.1)
    assert refusal.value.exit_code == ExitCode.IO

    with ThreadPoolExecutor(1) as pool:
        verification = pool.submit(verify_in_fresh_process, exported, images, probabilities)
        wait_until(lambda: children_with("trainer.publishing.verify_export"))
        os.kill(children_with("trainer.publishing.verify_export")[0], signal.SIGKILL)
        with pytest.raises(VerificationError, match=r"ended by SIGKILL .*memory") as refusal:
            verification.result(60)
    assert refusal.value.exit_code == ExitCode.IO


def test_a_verification_that_waits_ends_when_the_process_that_started_it_has_ended() -> None:
    command = [sys.executable, "-m", "trainer.publishing.verify_export"]
    done = subprocess.run(
        command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (ExitCode.STOPPED, "")


def children_with(argument: str) -> list[int]:
    """The children of this process that have `argument` on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            status, command = (process / "status").read_text(), (process / "cmdline").read_bytes()
        except OSError:
            continue
        if f"PPid:\t{os.getpid()}\n" in status and argument.encode() in command.split(b"\0"):
            found.append(int(process.name))
    return found


def test_damaged_metadata_of_any_version_does_not_stop_a_publisher(model_dir: Path, capsys) -> None:
    """One damaged digits.json, even of a retired version, ended every `train` with 70 after the training."""
    shutil.copytree(model_dir / "20260102030405", model_dir / "20250101000000.retired")
    damaged = model_dir / "20250101000000.retired" / "assets.extra" / "digits.json"
    damaged.write_text("{")
    assert find_published(model_dir, {"run": "r"}) == model_dir / "20260102030405"
    assert find_published(model_dir, {"run": "other"}) is None
    assert f"{damaged} is damaged" in capsys.readouterr().err


def test_after_publishing_only_the_versions_to_keep_are_left(model_dir: Path, trained) -> None:
    for older in ("20250101000000", "20250101000001"):
        shutil.copytree(model_dir / "20260102030405", model_dir / older)
    published = publish_to(model_dir, trained, keep_versions=2)
    assert published.served_before == 20260102030405
    assert names(model_dir) == {".lock", "20260102030405", "20260102030406"}
