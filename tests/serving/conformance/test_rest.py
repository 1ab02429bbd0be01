"""Conformance cases 59 to 87: the REST API. See test_predict.py."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf

from serving import contract
from tests.serving.saved_models import expected_digits, images_of, write_half_plus_two
from tests.serving.stubs import digits_of, predict_request

IMAGES = images_of(3, 0, 9)
MODEL = f"/v1/models/{contract.MODEL_NAME}"


@pytest.fixture(scope="module")
def rest(two_versions):
    return two_versions.rest


@pytest.fixture(scope="module")
def half_plus_two(start, tmp_path_factory):
    base_path = tmp_path_factory.mktemp("half_plus_two") / contract.MODEL_NAME
    write_half_plus_two(base_path)
    with start(base_path) as stubs:
        yield stubs.rest


def digits_in(body):
    return [row[contract.DIGIT] for row in body["predictions"]]


def test_59_status_lists_all_versions(rest):
    status, body = rest.get(MODEL)
    assert status == 200
    fine = {"error_code": "OK", "error_message": ""}
    assert body == {
        "model_version_status": [
            {"version": "2", "state": "AVAILABLE", "status": fine},
            {"version": "1", "state": "AVAILABLE", "status": fine},
        ]
    }


def test_60_status_of_one_version(rest):
    status, body = rest.get(f"{MODEL}/versions/1")
    assert status == 200
    assert [entry["version"] for entry in body["model_version_status"]] == ["1"]


def test_61_status_ignores_a_label(rest):
    status, body = rest.get(f"{MODEL}/labels/canary")
    assert status == 200
    assert len(body["model_version_status"]) == 2


@pytest.mark.parametrize("path", ["/v1/models/letters", f"{MODEL}/versions/99", "/v1/models/letters/metadata"])
def test_62_status_and_metadata_of_an_unknown_model_or_version_are_not_found(rest, path):
    status, body = rest.get(path)
    assert status == 404
    assert set(body) == {"error"}


def test_63_metadata_has_the_signatures(rest):
    for select, version in (("", "2"), ("/versions/1", "1"), ("/labels/stable", "1")):
        status, body = rest.get(f"{MODEL}{select}/metadata")
        assert status == 200
        assert body["model_spec"]["name"] == contract.MODEL_NAME
        assert body["model_spec"]["version"] == version
        signatures = body["metadata"]["signature_def"]["signature_def"]
        assert {contract.SIGNATURE, contract.PICTURES} <= set(signatures)
        images = signatures[contract.SIGNATURE]["inputs"][contract.IMAGES]
        assert images["dtype"] == "DT_UINT8"
        assert [dim["size"] for dim in images["tensor_shape"]["dim"]] == ["-1", "28", "28"]


def test_64_metadata_of_an_unknown_label_is_invalid(rest):
    status, body = rest.get(f"{MODEL}/labels/canary/metadata")
    assert status == 400
    assert "canary" in body["error"]


def test_65_row_format_returns_one_object_per_row(rest):
    status, body = rest.predict({"instances": IMAGES.tolist()})
    assert status == 200
    assert set(body["predictions"][0]) == {contract.PROBABILITIES, contract.DIGIT, contract.CONFIDENCE}
    assert digits_in(body) == expected_digits(IMAGES, shift=1).tolist()


def test_66_rows_may_be_objects_that_name_the_input(rest):
    status, body = rest.predict({"instances": [{contract.IMAGES: image.tolist()} for image in IMAGES]})
    assert status == 200
    assert digits_in(body) == expected_digits(IMAGES, shift=1).tolist()


def test_67_column_format_returns_tensors(rest):
    for inputs in (IMAGES.tolist(), {contract.IMAGES: IMAGES.tolist()}):
        status, body = rest.predict({"signature_name": contract.SIGNATURE, "inputs": inputs})
        assert status == 200
        assert body["outputs"][contract.DIGIT] == expected_digits(IMAGES, shift=1).tolist()


def test_68_both_formats_and_grpc_return_the_same_numbers(two_versions, rest):
    response = two_versions.predict(predict_request(IMAGES)).outputs[contract.PROBABILITIES]
    expected = np.reshape(np.array(response.float_val, np.float32), (-1, contract.CLASSES))
    _, rows = rest.predict({"instances": IMAGES.tolist()})
    _, columns = rest.predict({"inputs": IMAGES.tolist()})
    for found in (
        [row[contract.PROBABILITIES] for row in rows["predictions"]],
        columns["outputs"][contract.PROBABILITIES],
    ):
        np.testing.assert_array_equal(np.array(found, np.float32), expected)


def test_69_bytes_are_base64(rest):
    encoded = base64.b64encode(tf.io.encode_png(images_of(7)[0][..., None]).numpy()).decode()
    lines = "\n".join(encoded[start : start + 76] for start in range(0, len(encoded), 76)) + "\n"  # as `base64 FILE`
    for row in ({"b64": encoded}, {contract.ENCODED: {"b64": encoded}}, {"b64": lines}):
        status, body = rest.predict({"signature_name": contract.PICTURES, "instances": [row]})
        assert status == 200
        assert digits_in(body) == [8]


@pytest.mark.parametrize("value", [{"b64": "?"}, {"b64": 7}, {"b65": "aaaa"}, {"b64": "aaaa", "more": 1}])
def test_70_malformed_base64_is_invalid(rest, value):
    assert rest.predict({"signature_name": contract.PICTURES, "instances": [value]})[0] == 400
    assert rest.predict({"signature_name": contract.PICTURES, "inputs": {contract.ENCODED: [value]}})[0] == 400


@pytest.mark.parametrize(
    "document",
    [
        {"signature_name": "\ud800", "instances": IMAGES.tolist()},
        {"signature_name": contract.PICTURES, "instances": ["\ud800"]},
        {"\ud800": 1, "instances": IMAGES.tolist()},
    ],
)
def test_a_string_that_utf8_cannot_encode_is_invalid(rest, document):
    assert rest.predict(document)[0] == 400


@pytest.mark.parametrize(("select", "shift"), [("", 1), ("/versions/1", 0), ("/versions/2", 1), ("/labels/stable", 0)])
def test_71_a_version_and_a_label_in_the_path_select_the_version(rest, select, shift):
    status, body = rest.predict({"instances": IMAGES.tolist()}, select=select)
    assert status == 200
    assert digits_in(body) == expected_digits(IMAGES, shift=shift).tolist()


def test_72_an_unknown_model_or_version_is_not_found_and_an_unknown_label_is_invalid(rest):
    document = {"instances": IMAGES.tolist()}
    assert rest.predict(document, model="letters")[0] == 404
    assert rest.predict(document, select="/versions/99")[0] == 404
    assert rest.predict(document, select="/labels/canary")[0] == 400


@pytest.mark.parametrize(
    "body",
    [b"", b"instances = [1, 2]", b"[1, 2]", b"7", b'{"instances": [1, 2}', b'{"instances": [1]} more'],
)
def test_73_a_body_that_is_no_json_object_is_invalid(rest, body):
    status, document = rest.predict(body)
    assert status == 400
    assert "JSON" in document["error"]


@pytest.mark.parametrize(
    "body",
    [
        rb'{"signature_name": "\ud800", "instances": [1]}',
        rb'{"inputs": {"\uDFFF": [1]}}',
        rb'{"instances": ["a\ud800b"]}',
    ],
)
def test_73_a_lone_surrogate_is_invalid(rest, body):
    status, document = rest.predict(body)
    assert status == 400
    assert "JSON" in document["error"]
    assert rest.post(f"{MODEL}:classify", b'{"examples": [{"\\ud800": 1}]}')[0] == 400


def test_74_a_malformed_body_is_invalid_also_for_an_unknown_model(rest):
    assert rest.predict(b"no JSON", model="letters")[0] == 400


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"instances": [1], "inputs": [1]},
        {"instances": []},
        {"instances": {}},
        {"instances": 7},
        {"instances": None},
    ],
)
def test_75_a_body_needs_instances_or_inputs(rest, document):
    status, body = rest.predict(document)
    assert status == 400
    assert set(body) == {"error"}


def test_76_a_signature_name_is_a_string_of_a_signature(rest):
    status, body = rest.predict({"signature_name": 100, "instances": IMAGES.tolist()})
    assert status == 400
    assert "signature_name" in body["error"]
    for name in ("sketches", "__saved_model_init_op"):
        status, body = rest.predict({"signature_name": name, "instances": IMAGES.tolist()})
        assert status == 400
        assert name in body["error"]


@pytest.mark.parametrize("value", ["7", 7.5, 7.0, True, None, {}, 2**31, -(2**63)])
def test_77_values_of_another_type_are_invalid(rest, value):
    images = IMAGES.tolist()
    images[1][5][5] = value
    for document in ({"instances": images}, {"inputs": images}):
        assert rest.predict(document)[0] == 400


def test_78_uneven_lists_are_invalid(rest):
    images = IMAGES.tolist()
    for damaged in (
        [*images, images[0][:-1]],
        [*images, images[0][0]],
        [*images, 7],
        [[*images[0][:-1], [0] * 27]],
        [[*images[0][:-1], [[0]] * 28]],
    ):
        assert rest.predict({"instances": damaged})[0] == 400
        assert rest.predict({"inputs": damaged})[0] == 400


def test_79_rows_with_other_names_are_invalid(rest):
    image = IMAGES[0].tolist()
    for rows in (
        [{"pixels": image}],
        [{contract.IMAGES: image, "pixels": image}],
        [{}],
        [{contract.IMAGES: image}, image],
        [image, {contract.IMAGES: image}],
    ):
        assert rest.predict({"instances": rows})[0] == 400
    assert rest.predict({"inputs": {"pixels": [image]}})[0] == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("GET", "/v1/models"),
        ("GET", f"{MODEL}/version/1"),
        ("GET", f"{MODEL}:predict"),
        ("POST", MODEL),
        ("POST", f"{MODEL}/metadata"),
        ("POST", f"{MODEL}/version/1:predict"),
        ("POST", f"{MODEL}/versions/one:predict"),
        ("POST", f"{MODEL}/versions/{2**64}:predict"),
        ("POST", f"{MODEL}/versions/1/labels/stable:predict"),
        ("PUT", f"{MODEL}:predict"),
    ],
)
def test_80_a_malformed_path_or_method_is_invalid(rest, method, path):
    status, body = rest.request(method, path, b"{}" if method != "GET" else None)
    assert status == 400
    assert body is None or set(body) == {"error"}  # TensorFlow Serving sends no body for a number above 64 bits


def test_81_paths_outside_v1_are_not_found_and_v1_ignores_case(rest):
    for path in ("/", "/index.html", "/v2/models/digits"):
        assert rest.get(path)[0] == 404
    assert rest.get(f"/V1/Models/{contract.MODEL_NAME}")[0] == 200


@pytest.mark.parametrize("text", ["1e39", "-1e39", "1e400", "-1e400", str(2**24 + 1), str(2**63)])
def test_82_a_number_that_float32_cannot_hold_is_invalid(half_plus_two, text):
    body = json.dumps({"instances": [["@"]]}).replace('"@"', text).encode()
    assert half_plus_two.predict(body)[0] == 400


def test_83_whole_numbers_infinities_and_short_decimals_are_floats(half_plus_two):
    values = "[[2], [0.25], [NaN], [Infinity], [-Infinity], [1e-3]]"
    status, body = half_plus_two.predict(f'{{"instances": {values}}}'.encode())
    assert status == 200
    expected = np.array([3.0, 2.125, np.nan, np.inf, -np.inf, 2.0005], np.float32)
    np.testing.assert_array_equal(np.array(body["predictions"], np.float32).ravel(), expected)


def test_84_a_scalar_for_a_batch_is_what_the_graph_makes_of_it(half_plus_two):
    assert half_plus_two.predict({"inputs": 2.0}) == (200, {"outputs": 3.0})
    assert half_plus_two.predict({"instances": [2.0, 4.0]}) == (200, {"predictions": [3.0, 4.0]})


def test_85_a_shape_that_the_graph_rejects_is_invalid(rest):
    for shape in ((1, 28, 28, 1), (1, 14, 56), (28, 28)):
        assert rest.predict({"instances": np.zeros(shape, int).tolist()})[0] == 400


def test_86_many_rows_are_served(rest):
    status, body = rest.predict({"instances": np.zeros((1001, *contract.IMAGE_SHAPE), int).tolist()})
    assert status == 200
    assert digits_in(body) == [1] * 1001


def test_87_the_digits_of_the_readme_example_are_those_of_grpc(two_versions, rest):
    status, body = rest.predict({"instances": images_of(*range(10)).tolist()})
    assert status == 200
    assert digits_in(body) == digits_of(two_versions.predict(predict_request(images_of(*range(10)))))
