"""The numbered cases in which a server must answer as TensorFlow Serving does, asked with its own stubs.

Each runs against the local server and, where there is one, against the real server (see conftest.py).
"""

import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    prediction_log_pb2,
)

from serving import contract
from tests.ports import port_is_open
from tests.serving.saved_models import expected_digits, images_of, write_version
from tests.serving.stubs import (
    digits_of,
    model_spec,
    outputs_of,
    pictures_request,
    predict_request,
    refused,
    version_of,
)
from tests.waiting import wait_until

IMAGES = images_of(3, 0, 9)


def test_01_an_empty_request_is_invalid(two_versions):
    with refused("INVALID_ARGUMENT", "Missing ModelSpec"):
        two_versions.predict(predict_pb2.PredictRequest())


def test_02_a_spec_without_a_name_is_invalid(two_versions):
    with refused("INVALID_ARGUMENT", "name"):
        two_versions.predict(predict_request(IMAGES, name="", signature="serving_default"))


def test_03_an_unknown_model_is_not_found(two_versions):
    with refused("NOT_FOUND", "letters"):
        two_versions.predict(predict_request(IMAGES, name="letters"))


def test_04_an_unknown_version_is_not_found(two_versions):
    with refused("NOT_FOUND", "99"):
        two_versions.predict(predict_request(IMAGES, version=99))


def test_05_an_unknown_label_is_invalid(two_versions):
    with refused("INVALID_ARGUMENT", "canary"):
        two_versions.predict(predict_request(IMAGES, label="canary"))


def test_06_an_unknown_signature_is_a_failed_precondition(two_versions):
    with refused("FAILED_PRECONDITION", "sketches"):
        two_versions.predict(predict_request(IMAGES, signature="sketches"))


def test_07_no_inputs_are_invalid_and_the_message_names_what_is_missing(two_versions):
    with refused("INVALID_ARGUMENT", contract.IMAGES):
        two_versions.predict(predict_pb2.PredictRequest(model_spec=model_spec()))


def test_08_a_misnamed_input_is_invalid_and_the_message_names_it(two_versions):
    request = predict_request(IMAGES)
    request.inputs["pixels"].CopyFrom(request.inputs.pop(contract.IMAGES))
    with refused("INVALID_ARGUMENT", contract.IMAGES, "pixels"):
        two_versions.predict(request)


def test_09_an_extra_input_is_invalid_and_the_message_names_it(two_versions):
    request = predict_request(IMAGES)
    request.inputs["pixels"].CopyFrom(request.inputs[contract.IMAGES])
    with refused("INVALID_ARGUMENT", "pixels"):
        two_versions.predict(request)


@pytest.mark.parametrize("shape", [[2, 28, 28], [1, 28, 28, 7], [-1, 28, 28], [2**40, 2**40, 28]])
def test_10_bytes_that_do_not_fit_their_shape_are_invalid(two_versions, shape):
    request = predict_request(images_of(3))
    dimensions = request.inputs[contract.IMAGES].tensor_shape.dim
    del dimensions[:]
    for size in shape:
        dimensions.add(size=size)
    with refused("INVALID_ARGUMENT"):
        two_versions.predict(request)


def test_11_strings_where_pixels_are_due_are_invalid(two_versions):
    request = predict_request(IMAGES)
    request.inputs[contract.IMAGES].CopyFrom(tf.make_tensor_proto(["seven"]))
    with refused("INVALID_ARGUMENT"):
        two_versions.predict(request)


def test_12_an_unknown_output_in_the_filter_is_invalid(two_versions):
    request = predict_request(IMAGES)
    request.output_filter.append("logits")
    with refused("INVALID_ARGUMENT", "logits"):
        two_versions.predict(request)


def test_13_an_output_named_twice_in_the_filter_is_invalid(two_versions):
    request = predict_request(IMAGES)
    request.output_filter.extend([contract.DIGIT, contract.DIGIT])
    with refused("INVALID_ARGUMENT", "duplicate", contract.DIGIT):
        two_versions.predict(request)


def test_14_a_valid_request_is_answered_with_the_version_and_signature_that_served(two_versions):
    response = two_versions.predict(predict_request(IMAGES))
    assert response.model_spec == model_spec(signature=contract.SIGNATURE, version=2)
    outputs = outputs_of(response)
    assert set(outputs) == {contract.PROBABILITIES, contract.DIGIT, contract.CONFIDENCE}
    assert outputs[contract.DIGIT].tolist() == expected_digits(IMAGES, shift=1).tolist()
    np.testing.assert_allclose(outputs[contract.PROBABILITIES].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(outputs[contract.PROBABILITIES].max(axis=1), outputs[contract.CONFIDENCE])


def test_14_the_output_filter_restricts_the_answer_which_uses_typed_fields(two_versions):
    request = predict_request(IMAGES)
    request.output_filter.append(contract.CONFIDENCE)
    (tensor,) = two_versions.predict(request).outputs.values()
    assert len(tensor.float_val) == len(IMAGES)
    assert not tensor.tensor_content


def test_15_a_named_signature_is_echoed(two_versions):
    png = tf.io.encode_png(images_of(7)[0][..., None]).numpy()
    response = two_versions.predict(pictures_request(png))
    assert response.model_spec.signature_name == "pictures"
    assert digits_of(response) == [8]


def test_16_a_pinned_version_and_a_label_are_answered_by_that_version_and_never_echo_the_label(two_versions):
    for asked in ({"version": 1}, {"label": "stable"}):
        response = two_versions.predict(predict_request(IMAGES, **asked))
        assert response.model_spec == model_spec(signature=contract.SIGNATURE, version=1)
        assert digits_of(response) == expected_digits(IMAGES).tolist()


def test_17_metadata_wants_the_one_field_it_knows(two_versions):
    for fields in ([], ["signature"], ["signature_def", "weights"]):
        with refused("INVALID_ARGUMENT"):
            two_versions.metadata(fields)
    with refused("INVALID_ARGUMENT"):
        two_versions.prediction.GetModelMetadata(get_model_metadata_pb2.GetModelMetadataRequest(), timeout=20)
    with refused("NOT_FOUND"):
        two_versions.metadata(version=99)


def test_17_metadata_holds_the_signatures_of_the_version_asked_for(two_versions):
    response = two_versions.metadata(version=1)
    assert response.model_spec == model_spec(version=1)
    packed = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(packed)
    assert {contract.SIGNATURE, "pictures"} <= set(packed.signature_def)
    assert list(packed.signature_def[contract.SIGNATURE].inputs) == [contract.IMAGES]


def test_18_status_names_what_it_does_not_know(two_versions):
    with refused("INVALID_ARGUMENT", "Missing ModelSpec"):
        two_versions.model.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(), timeout=20)
    with refused("NOT_FOUND", "letters"):
        two_versions.status(name="letters")
    with refused("NOT_FOUND", "99"):
        two_versions.status(version=99)


def test_18_status_of_one_version_and_of_all(two_versions):
    assert two_versions.status(version=1) == {1: ("AVAILABLE", 0, "")}
    assert two_versions.status() == {2: ("AVAILABLE", 0, ""), 1: ("AVAILABLE", 0, "")}


def test_19_with_only_non_numeric_children_nothing_is_served_and_no_port_opens(start, tmp_path):
    for name in (".7.tmp", "7.tmp", "v7"):
        write_version(tmp_path / "digits", name)
    with start(tmp_path / "digits", wait=False) as stubs:
        time.sleep(1.5)
        assert not port_is_open(stubs.port)
        (tmp_path / "digits" / "7.tmp").rename(tmp_path / "digits" / "7")
        wait_until(lambda: port_is_open(stubs.port))
        assert version_of(stubs.predict(predict_request(IMAGES))) == 7


def test_20_leading_zeros_do_not_count(start, tmp_path):
    write_version(tmp_path / "digits", "00017")
    with start(tmp_path / "digits") as stubs:
        assert version_of(stubs.predict(predict_request(IMAGES, version=17))) == 17


def test_21_renaming_the_newest_away_falls_back_to_the_older(start, tmp_path):
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
        with refused("NOT_FOUND"):
            stubs.predict(predict_request(IMAGES, version=2))


def test_22_a_timestamp_of_14_digits_is_a_version(start, tmp_path):
    write_version(tmp_path / "digits", 20261122134501)
    with start(tmp_path / "digits") as stubs:
        assert version_of(stubs.predict(predict_request(IMAGES))) == 20261122134501


@pytest.mark.parametrize("damage", ["a plain file", "an empty directory", "no variables"])
def test_23_a_version_that_fails_to_load_leaves_the_old_one_serving(start, tmp_path, damage):
    base_path = tmp_path / "digits"
    write_version(base_path, 1)
    with start(base_path) as stubs:
        if damage == "a plain file":
            (base_path / "8").write_text("not a model")
        elif damage == "an empty directory":
            (base_path / "8").mkdir()
        else:
            whole = write_version(base_path, ".8")
            for file in (whole / "variables").iterdir():
                file.unlink()
            whole.rename(base_path / "8")
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


def test_25_a_swap_under_load_answers_every_request(start, tmp_path):
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


def test_26_a_deadline_that_has_passed_is_deadline_exceeded(two_versions):
    with refused("DEADLINE_EXCEEDED"):
        two_versions.predict(predict_request(IMAGES), timeout=-1)


def test_27_typed_values_and_tensor_content_are_answered_the_same(two_versions):
    in_bytes = predict_request(IMAGES)
    assert in_bytes.inputs[contract.IMAGES].tensor_content
    typed = predict_request(IMAGES)
    typed.inputs[contract.IMAGES].ClearField("tensor_content")
    typed.inputs[contract.IMAGES].int_val.extend(IMAGES.ravel().tolist())
    assert two_versions.predict(typed) == two_versions.predict(in_bytes)


def test_27_of_fewer_typed_values_than_elements_the_last_is_repeated(two_versions):
    request = predict_request(IMAGES[:1])
    request.inputs[contract.IMAGES].ClearField("tensor_content")
    request.inputs[contract.IMAGES].int_val.append(int(IMAGES[0, 0, 0]))
    assert digits_of(two_versions.predict(request)) == expected_digits(IMAGES[:1], shift=1).tolist()
