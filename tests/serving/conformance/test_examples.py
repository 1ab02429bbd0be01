"""Conformance cases 48 to 58: Classify, Regress and MultiInference, over gRPC and REST. See test_predict.py."""

import pytest
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, regression_pb2

from serving import contract
from tests.serving.saved_models import write_half_plus_two
from tests.serving.stubs import model_spec, rejected

CLASSIFY = (classification_pb2.ClassificationRequest, "Classify", "classify_x_to_y")
REGRESS = (regression_pb2.RegressionRequest, "Regress", "regress_x_to_y")
BOTH = pytest.mark.parametrize("method", [CLASSIFY, REGRESS], ids=["classify", "regress"])


@pytest.fixture(scope="module")
def half_plus_two(start, tmp_path_factory):
    base_path = tmp_path_factory.mktemp("half_plus_two") / contract.MODEL_NAME
    write_half_plus_two(base_path)
    with start(base_path) as stubs:
        yield stubs


def example(x):
    if x is None:
        return example_pb2.Example()
    feature = feature_pb2.Feature(float_list=feature_pb2.FloatList(value=[x]))
    return example_pb2.Example(features=feature_pb2.Features(feature={"x": feature}))


def examples(*xs):
    return input_pb2.Input(example_list=input_pb2.ExampleList(examples=[example(x) for x in xs]))


def call(stubs, method, given, **spec):
    request_type, name, _ = method
    request = request_type(model_spec=model_spec(**spec), input=given)
    return getattr(stubs.prediction, name)(request, timeout=60)


def values_of(result):
    if isinstance(result, regression_pb2.RegressionResult):
        return [entry.value for entry in result.regressions]
    return [[entry.score for entry in row.classes] for row in result.classifications]


@BOTH
def test_48_a_request_without_spec_is_invalid(half_plus_two, method):
    with rejected("INVALID_ARGUMENT", "Missing ModelSpec"):
        getattr(half_plus_two.prediction, method[1])(method[0](input=examples(2.0)), timeout=60)


@BOTH
def test_49_an_unknown_model_is_not_found(half_plus_two, method):
    with rejected("NOT_FOUND", "letters"):
        call(half_plus_two, method, examples(2.0), name="letters")
    path = f"/v1/models/letters:{method[1].lower()}"
    assert half_plus_two.rest.post(path, {"examples": [{"x": 2.0}]})[0] == 404


@BOTH
def test_50_an_unknown_or_unsuitable_signature_is_invalid(half_plus_two, method):
    for signature in ("sketches", "", "with_default"):
        with rejected("INVALID_ARGUMENT"):
            call(half_plus_two, method, examples(2.0), signature=signature)
    path = f"/v1/models/{contract.MODEL_NAME}:{method[1].lower()}"
    assert half_plus_two.rest.post(path, {"signature_name": "sketches", "examples": [{"x": 2.0}]})[0] == 400


@BOTH
def test_51_no_example_is_invalid(half_plus_two, method):
    with rejected("INVALID_ARGUMENT", "empty"):
        call(half_plus_two, method, input_pb2.Input(), signature=method[2])
    path = f"/v1/models/{contract.MODEL_NAME}:{method[1].lower()}"
    for document in ({}, {"examples": []}, {"examples": {"x": 2.0}}, {"examples": [2.0]}, {"examples": [{"x": None}]}):
        assert half_plus_two.rest.post(path, {"signature_name": method[2], **document})[0] == 400


def test_52_classify_returns_scores(half_plus_two):
    response = call(half_plus_two, CLASSIFY, examples(2.0, 4.0), signature="classify_x_to_y")
    assert values_of(response.result) == [[3.0], [4.0]]
    assert response.model_spec == model_spec(signature="classify_x_to_y", version=1)


def test_53_regress_returns_values(half_plus_two):
    response = call(half_plus_two, REGRESS, examples(2.0, 4.0), signature="regress_x_to_y")
    assert values_of(response.result) == [3.0, 4.0]
    assert response.model_spec == model_spec(signature="regress_x_to_y", version=1)


@BOTH
def test_54_the_features_of_the_context_belong_to_every_example(half_plus_two, method):
    given = input_pb2.Input(
        example_list_with_context=input_pb2.ExampleListWithContext(
            context=example(2.0), examples=[example(None), example(None)]
        )
    )
    response = call(half_plus_two, method, given, signature=method[2])
    assert values_of(response.result) in ([3.0, 3.0], [[3.0], [3.0]])


def test_55_rest_classify_and_regress_return_results(half_plus_two):
    path = f"/v1/models/{contract.MODEL_NAME}"
    document = {"signature_name": "regress_x_to_y", "examples": [{"x": 2.0}, {"x": [4.0]}]}
    assert half_plus_two.rest.post(f"{path}:regress", document) == (200, {"results": [3.0, 4.0]})
    document = {"signature_name": "classify_x_to_y", "context": {"x": 2.0}, "examples": [{}, {}]}
    status, body = half_plus_two.rest.post(f"{path}/versions/1:classify", document)
    assert (status, body) == (200, {"results": [[["", 3.0]], [["", 3.0]]]})


def test_55_rest_examples_reject_a_number_that_float32_cannot_hold(half_plus_two):
    path = f"/v1/models/{contract.MODEL_NAME}:regress"
    for text, status in (("1e39", 400), ("-1e400", 400), ("Infinity", 200)):
        body = f'{{"signature_name": "regress_x_to_y", "examples": [{{"x": {text}}}]}}'.encode()
        assert half_plus_two.rest.post(path, body)[0] == status


def multi_inference(stubs, *tasks, given=None):
    request = inference_pb2.MultiInferenceRequest(input=examples(2.0) if given is None else given)
    for spec, method in tasks:
        request.tasks.add(model_spec=spec, method_name=f"tensorflow/serving/{method}")
    return stubs.prediction.MultiInference(request, timeout=60)


def test_56_multi_inference_returns_the_result_of_every_task(half_plus_two):
    regress, classify = model_spec(signature="regress_x_to_y"), model_spec(signature="classify_x_to_y")
    response = multi_inference(half_plus_two, (regress, "regress"), (classify, "classify"))
    first, second = response.results
    assert values_of(first.regression_result) == [3.0]
    assert values_of(second.classification_result) == [[3.0]]
    assert [result.model_spec for result in response.results] == [
        model_spec(signature="regress_x_to_y", version=1),
        model_spec(signature="classify_x_to_y", version=1),
    ]


def test_57_multi_inference_without_tasks_or_for_several_models_is_invalid(half_plus_two):
    regress, classify = model_spec(signature="regress_x_to_y"), model_spec(signature="classify_x_to_y")
    with rejected("INVALID_ARGUMENT"):
        multi_inference(half_plus_two)
    with rejected("INVALID_ARGUMENT"):
        multi_inference(half_plus_two, (regress, "regress"), (regress, "regress"))
    with rejected("INVALID_ARGUMENT"):
        multi_inference(half_plus_two, (regress, "regress"), (model_spec("letters", signature="x"), "classify"))
    with rejected("INVALID_ARGUMENT"):
        multi_inference(half_plus_two, (regress, "regress"), (classify, "classify"), given=input_pb2.Input())
    with rejected("NOT_FOUND"):
        multi_inference(half_plus_two, (model_spec("letters"), "regress"))


def test_58_multi_inference_with_another_method_is_unimplemented(half_plus_two):
    with rejected("UNIMPLEMENTED"):
        multi_inference(half_plus_two, (model_spec(signature="regress_x_to_y"), "predict"))
