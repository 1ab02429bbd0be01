"""Both clients and the command line against the local server and a real SavedModel."""

import json

import numpy as np
import pytest

from serving import contract
from serving.cli import main
from serving.client import ClientConfig
from serving.client.errors import InvalidRequestError, NotFoundError
from serving.client.results import TensorSpec
from serving.local_server.config import BatchingParameters
from serving.local_server.server import LocalServer
from serving.local_server.versions.discovery import VersionPolicy
from tests.serving.client_calls import call_sync
from tests.serving.saved_models import expected_digits, images_of, write_version

IMAGES = images_of(*np.random.default_rng(0).integers(0, contract.CLASSES, 250))  # a full chunk and a part of one


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """Serve version 7, and version 8 with all digits one higher; 7 has the label `stable`."""
    base_path = tmp_path_factory.mktemp("models")
    write_version(base_path, 7)
    write_version(base_path, 8, shift=1)
    batching = BatchingParameters(max_batch_size=128)
    settings = {"version_policy": VersionPolicy.all(), "version_labels": {"stable": 7}, "batching": batching}
    with LocalServer(base_path, start_timeout_seconds=120, **settings) as server:
        for version in (7, 8):
            call_sync(server.target, "wait_until_available", version)
        yield server.target


@pytest.mark.parametrize(
    ("settings", "version"), [({}, 8), ({"version": 7}, 7), ({"version": 8}, 8), ({"version_label": "stable"}, 7)]
)
def test_the_version_of_the_config_predicts_every_image(target, call, settings, version):
    predictions = call(target, "predict", IMAGES, config=ClientConfig(**settings))
    assert np.array_equal(predictions.digit, expected_digits(IMAGES, shift=version - 7))
    assert np.array_equal(predictions.digit, predictions.probabilities.argmax(axis=1))
    assert np.array_equal(predictions.confidence, predictions.probabilities.max(axis=1))
    assert predictions.probabilities.sum(axis=1) == pytest.approx(np.ones(len(IMAGES)), abs=1e-5)
    assert set(predictions.version.tolist()) == {version}


def test_a_version_that_is_not_served_raises_not_found(target, call):
    with pytest.raises(NotFoundError, match="9"):
        call(target, "predict", IMAGES, config=ClientConfig(version=9))


def test_an_unknown_label_is_an_invalid_request(target, call):
    with pytest.raises(InvalidRequestError, match="canary"):
        call(target, "predict", IMAGES, config=ClientConfig(version_label="canary"))


def test_a_chunk_above_the_servers_largest_batch_is_rejected_and_the_default_is_not(target, call):
    with pytest.raises(InvalidRequestError):
        call(target, "predict", IMAGES, config=ClientConfig(chunk_images=200))


def test_status_lists_both_versions(target, call):
    assert [(one.version, one.state, one.error_code) for one in call(target, "status")] == [
        (8, "AVAILABLE", "OK"),
        (7, "AVAILABLE", "OK"),
    ]
    assert [one.version for one in call(target, "status", 7)] == [7]


def test_metadata_matches_the_contract(target, call):
    metadata = call(target, "metadata", config=ClientConfig(version=7))
    signature = metadata.signatures[contract.SIGNATURE]
    assert (metadata.name, metadata.version) == (contract.MODEL_NAME, 7)
    assert signature.inputs == {contract.IMAGES: TensorSpec(dtype="DT_UINT8", shape=(None, *contract.IMAGE_SHAPE))}
    assert signature.outputs[contract.PROBABILITIES] == TensorSpec(dtype="DT_FLOAT", shape=(None, contract.CLASSES))


def test_the_command_line_queries_the_local_server(target, tmp_path, capsys):
    np.save(tmp_path / "images.npy", IMAGES)
    assert main(["wait", "--version", "8", "--timeout", "10", "--target", target]) == 0
    assert capsys.readouterr().out == "8\n"
    assert main(["predict", str(tmp_path / "images.npy"), "--json", "--label", "stable", "--target", target]) == 0
    predictions = json.loads(capsys.readouterr().out)
    assert [one["digit"] for one in predictions] == expected_digits(IMAGES).tolist()
    assert main(["predict", str(tmp_path / "images.npy"), "--version", "9", "--target", target]) == 1
    assert "NOT_FOUND" in capsys.readouterr().err
