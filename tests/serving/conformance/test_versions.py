"""Conformance cases 17 to 25 and 37 to 47: metadata, status, versions on disk and reload.

See test_predict.py.
"""

import threading
import time

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    prediction_log_pb2,
)

from serving import contract
from serving.local_server.versions.discovery import VersionPolicy
from tests.ports import port_is_open
from tests.serving.conftest import model_entry
from tests.serving.saved_models import (
    expected_digits,
    images_of,
    write_half_plus_two,
    write_version,
    write_without_variables,
)
from tests.serving.stubs import digits_of, model_spec, predict_request, rejected, version_of
from tests.waiting import wait_until

IMAGES = images_of(3, 0, 9)


def test_17_metadata_rejects_other_fields_than_signature_def(two_versions):
    for fields in ([], ["signature"], ["signature_def", "weights"]):
        with rejected("INVALID_ARGUMENT"):
            two_versions.metadata(fields)
    with rejected("INVALID_ARGUMENT"):
        two_versions.prediction.GetModelMetadata(get_model_metadata_pb2.GetModelMetadataRequest(), timeout=60)
    with rejected("NOT_FOUND"):
        two_versions.metadata(version=99)


def test_17_metadata_has_the_signatures_of_the_requested_version(two_versions):
    response = two_versions.metadata(version=1)
    assert response.model_spec == model_spec(version=1)
    packed = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(packed)
    assert {contract.SIGNATURE, "pictures"} <= set(packed.signature_def)
    assert list(packed.signature_def[contract.SIGNATURE].inputs) == [contract.IMAGES]


def test_18_status_of_an_unknown_model_or_version_is_not_found(two_versions):
    with rejected("INVALID_ARGUMENT", "Missing ModelSpec"):
        two_versions.model.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(), timeout=60)
    with rejected("NOT_FOUND", "letters"):
        two_versions.status(name="letters")
    with rejected("NOT_FOUND", "99"):
        two_versions.status(version=99)


def test_18_status_of_one_version_and_of_all(two_versions):
    assert two_versions.status(version=1) == {1: ("AVAILABLE", 0, "")}
    assert two_versions.status() == {2: ("AVAILABLE", 0, ""), 1: ("AVAILABLE", 0, "")}


def test_19_with_only_non_numeric_children_no_port_opens(start, tmp_path):
    for name in (".7.tmp", "7.tmp", "v7"):
        write_version(tmp_path / "digits", name)
    with start(tmp_path / "digits", wait=False) as stubs:
        end = time.monotonic() + 1.5  # more than one poll of either server
        while time.monotonic() < end:
            assert not port_is_open(stubs.port)
            time.sleep(0.02)
        (tmp_path / "digits" / "7.tmp").rename(tmp_path / "digits" / "7")
        wait_until(lambda: port_is_open(stubs.port), timeout_seconds=60)
        assert stubs.status() == {7: ("AVAILABLE", 0, "")}
        assert version_of(stubs.predict(predict_request(IMAGES))) == 7


def test_20_leading_zeros_are_ignored(start, tmp_path):
    write_version(tmp_path / "digits", "00017")
    with start(tmp_path / "digits") as stubs:
        assert version_of(stubs.predict(predict_request(IMAGES, version=17))) == 17


def test_21_renaming_the_newest_version_rolls_back_to_the_older(start, tmp_path):
    write_version(tmp_path / "digits", 1)
    newest = write_version(tmp_path / "digits", 2, shift=1)
    with start(tmp_path / "digits") as stubs:
        assert version_of(stubs.predict(predict_request(IMAGES))) == 2
        newest.rename(newest.with_name("2.retired"))
        wait_until(lambda: stubs.state(2) == "END")
        response = stubs.predict(predict_request(IMAGES))
        assert version_of(response) == 1
        assert digits_of(response) == expected_digits(IMAGES).tolist()
        assert stubs.status()[2] == ("END", 0, "")
        with rejected("NOT_FOUND"):
            stubs.predict(predict_request(IMAGES, version=2))


def test_22_a_timestamp_of_14_digits_is_a_version(start, tmp_path):
    write_version(tmp_path / "digits", 20261122134501)
    with start(tmp_path / "digits") as stubs:
        assert version_of(stubs.predict(predict_request(IMAGES))) == 20261122134501


@pytest.mark.parametrize("damage", ["a plain file", "an empty directory", "a damaged saved_model.pb"])
def test_23_a_version_that_fails_to_load_leaves_the_older_one_serving(start, tmp_path, damage):
    base_path = tmp_path / "digits"
    write_version(base_path, 1)
    with start(base_path) as stubs:
        if damage == "a plain file":
            (base_path / "8").write_text("not a model")
        elif damage == "an empty directory":
            (base_path / "8").mkdir()
        else:
            damaged = write_version(base_path, ".8")
            (damaged / "saved_model.pb").write_bytes(b"damaged")
            damaged.rename(base_path / "8")
        wait_until(lambda: stubs.state(8) == "END")
        _, code, message = stubs.status()[8]
        assert code != 0
        assert message
        assert stubs.state(1) == "AVAILABLE"
        assert version_of(stubs.predict(predict_request(IMAGES))) == 1


@pytest.mark.parametrize("records", [1000, 1001, "corrupt", "unanswerable"])
def test_24_too_many_or_bad_warmup_records_fail_the_version(start, tmp_path, records):
    base_path = tmp_path / "digits"
    write_version(base_path, 1)
    with start(base_path) as stubs:
        version = write_version(base_path, ".2")
        write_warmup(version, records)
        version.rename(base_path / "2")
        good = records == 1000
        wait_until(lambda: stubs.state(2) == ("AVAILABLE" if good else "END"), timeout_seconds=30)
        assert (stubs.status()[2][1] == 0) == good
        assert version_of(stubs.predict(predict_request(IMAGES))) == (2 if good else 1)


def write_warmup(version, records):
    request = predict_request(images_of(1), name="any name", version=12345)
    if records == "unanswerable":
        request.inputs.pop(contract.IMAGES)
    log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(records if isinstance(records, int) else 1):
            writer.write(log.SerializeToString())
    if records == "corrupt":
        content = bytearray(path.read_bytes())
        content[20] ^= 0xFF
        path.write_bytes(content)


def test_25_a_swap_under_load_loses_no_request(start, tmp_path):
    base_path = tmp_path / "digits"
    write_version(base_path, 1)
    answers, failures, done = [], [], threading.Event()

    def ask(stubs):
        while not done.is_set():
            try:
                response = stubs.predict(predict_request(IMAGES))
                answers.append((version_of(response), tuple(digits_of(response))))
            except Exception as error:
                failures.append(error)

    with start(base_path) as stubs:
        threads = [threading.Thread(target=ask, args=(stubs,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        write_version(base_path, 2, shift=1)
        wait_until(lambda: stubs.state(2) == "AVAILABLE" and stubs.state(1) == "END")
        answered = len(answers)
        wait_until(lambda: len(answers) > answered + 20)
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert {version for version, _ in answers} == {1, 2}
    for version, digits in answers:
        assert digits == tuple(expected_digits(IMAGES, shift=version - 1))


def test_37_status_ignores_a_label_and_lists_all_versions(two_versions):
    for label in ("stable", "canary"):
        assert set(two_versions.status(label=label)) == {1, 2}


def test_38_status_of_an_unknown_model_with_a_label_is_not_found(two_versions):
    with rejected("NOT_FOUND", "letters"):
        two_versions.status(name="letters", label="stable")


def test_39_status_of_an_empty_model_name_is_not_found(two_versions):
    with rejected("NOT_FOUND"):
        two_versions.status(name="")


def test_40_a_version_without_variables_is_available_and_its_requests_fail(start, tmp_path):
    base_path = tmp_path / "digits"
    write_version(base_path, 1)
    with start(base_path) as stubs:
        write_without_variables(base_path, 2)
        wait_until(lambda: stubs.state(2) == "AVAILABLE" and stubs.state(1) == "END")
        with rejected("FAILED_PRECONDITION"):
            stubs.predict(predict_request(IMAGES))
        assert stubs.rest.predict({"instances": IMAGES.tolist()})[0] == 400


def reload(stubs, entries):
    """Send HandleReloadConfigRequest with a model_config_list of `entries`."""
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(f"model_config_list {{ {entries} }}", request.config)
    return stubs.model.HandleReloadConfigRequest(request, timeout=60)


@pytest.fixture
def three_versions(tmp_path):
    base_path = tmp_path / "digits"
    for version in (1, 2, 3):
        write_version(base_path, version, shift=version)
    return base_path


def test_41_an_empty_reload_is_invalid(two_versions):
    with rejected("INVALID_ARGUMENT"):
        two_versions.model.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(), timeout=60)


def test_42_a_reload_changes_the_version_policy(start, three_versions):
    with start(three_versions) as stubs:
        response = reload(stubs, model_entry(three_versions, policy=VersionPolicy.specific(1, 2)))
        assert response.status.error_code == 0
        wait_until(lambda: stubs.state(1) == stubs.state(2) == "AVAILABLE" and stubs.state(3) == "END")
        assert version_of(stubs.predict(predict_request(IMAGES))) == 2
        assert version_of(stubs.predict(predict_request(IMAGES, version=1))) == 1


def test_43_a_reload_changes_the_labels(start, three_versions):
    policy = VersionPolicy.all()
    with start(three_versions, policy=policy, labels={"stable": 1, "old": 1}) as stubs:
        wait_until(lambda: [state for state, *_ in stubs.status().values()] == ["AVAILABLE"] * 3)
        reload(stubs, model_entry(three_versions, policy=policy, labels={"stable": 2, "canary": 3}))
        assert version_of(stubs.predict(predict_request(IMAGES, label="stable"))) == 2
        assert version_of(stubs.predict(predict_request(IMAGES, label="canary"))) == 3
        with rejected("INVALID_ARGUMENT", "old"):
            stubs.predict(predict_request(IMAGES, label="old"))


def test_44_a_reload_that_moves_a_label_to_an_unavailable_version_fails(start, three_versions):
    with start(three_versions, labels={"stable": 3}) as stubs:
        with rejected("FAILED_PRECONDITION", "99"):
            reload(stubs, model_entry(three_versions, labels={"stable": 99}))
        assert version_of(stubs.predict(predict_request(IMAGES, label="stable"))) == 3


@pytest.mark.parametrize("fault", ["repeated name", "relative path", "unknown platform", "no platform"])
def test_45_an_invalid_reload_is_rejected_and_changes_nothing(start, three_versions, fault):
    entry = model_entry(three_versions)
    with start(three_versions) as stubs:
        with rejected("INVALID_ARGUMENT"):
            reload(
                stubs,
                {
                    "repeated name": entry + entry,
                    "relative path": model_entry("models/digits"),
                    "unknown platform": entry.replace("'tensorflow'", "'letters'"),
                    "no platform": entry.replace("model_platform: 'tensorflow'", ""),
                }[fault],
            )
        assert version_of(stubs.predict(predict_request(IMAGES))) == 3


def test_46_a_reload_adds_and_removes_models(start, three_versions, tmp_path):
    write_half_plus_two(tmp_path / "half")
    with start(three_versions) as stubs:
        reload(stubs, model_entry(three_versions) + model_entry(tmp_path / "half", name="half"))
        assert stubs.status(name="half") == {1: ("AVAILABLE", 0, "")}
        assert version_of(stubs.predict(predict_request(IMAGES))) == 3
        reload(stubs, model_entry(tmp_path / "half", name="half"))
        wait_until(lambda: stubs.state(3) == "END")
        with rejected("NOT_FOUND"):
            stubs.predict(predict_request(IMAGES))
        assert stubs.status(name="half") == {1: ("AVAILABLE", 0, "")}


def test_47_the_config_file_lists_several_models(start, three_versions, tmp_path):
    write_half_plus_two(tmp_path / "half")
    entries = model_entry(three_versions) + model_entry(tmp_path / "half", name="half")
    with start(three_versions, entries=entries) as stubs:
        assert version_of(stubs.predict(predict_request(IMAGES))) == 3
        assert stubs.status(name="half") == {1: ("AVAILABLE", 0, "")}
        assert stubs.rest.predict({"inputs": [2.0]}, model="half") == (200, {"outputs": [3.0]})
