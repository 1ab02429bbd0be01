"""The signatures of a published version, as TensorFlow Serving runs them."""

from pathlib import Path

import numpy as np
import pytest

from serving.local_server.errors import StatusError
from trainer.publishing.verify_export import TOLERANCE


@pytest.fixture(scope="module")
def run_signature(finished: Path):
    """Run a signature of a complete version as TensorFlow Serving does: no shape is compared with the signature."""
    from serving.local_server.model.servable import Servable

    (version,) = (finished / "models" / "digits").glob("[0-9]*")
    servable = Servable(version)
    yield lambda name, **inputs: servable.run(servable.signature(name), inputs)
    servable.close()


def test_a_blank_picture_gets_the_same_probability_for_every_digit(run_signature) -> None:
    import tensorflow as tf

    file = tf.io.encode_png(np.full((50, 60, 3), 200, np.uint8)).numpy()
    answer = run_signature("pictures", encoded=np.array([file], object))
    assert not answer["normalized"].any()
    assert np.allclose(answer["probabilities"], 0.1)


def test_doubt_about_an_image_lowers_the_confidence_of_its_prediction(run_signature) -> None:
    import tensorflow as tf

    drawing = np.full((60, 50, 3), 200, np.uint8)
    drawing[10:50, 20:26] = drawing[10:16, 20:40] = 90
    answer = run_signature("pictures", encoded=np.array([tf.io.encode_png(drawing).numpy()], object))
    of_image = run_signature("serving_default", images=answer["normalized"])
    (doubt,) = answer["doubt"]
    assert 0 < doubt < 0.5
    expected = (1 - doubt) * of_image["probabilities"] + doubt / 10
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-5)
    np.testing.assert_allclose(answer["confidence"], expected.max(axis=1), rtol=1e-5)
    assert answer["digit"] == of_image["digit"]


@pytest.mark.parametrize("shape", [(2, 28, 28, 1), (1, 14, 56), (2, 784), (28, 28), ()])
def test_the_graph_rejects_images_of_another_shape(run_signature, shape) -> None:
    with pytest.raises(StatusError, match=r"not compatible with expected shape \[\?,28,28\]") as rejection:
        run_signature("serving_default", images=np.zeros(shape, np.uint8))
    assert rejection.value.code.name == "INVALID_ARGUMENT"


@pytest.mark.parametrize("shape", [(1, 1), ()])
def test_the_graph_rejects_files_of_another_shape(run_signature, shape) -> None:
    with pytest.raises(StatusError, match=r"not compatible with expected shape \[\?\]") as rejection:
        run_signature("pictures", encoded=np.full(shape, b"any file", object))
    assert rejection.value.code.name == "INVALID_ARGUMENT"


def test_one_bad_file_gets_a_problem_and_the_others_their_prediction(run_signature, trained) -> None:
    import tensorflow as tf

    good = [tf.io.encode_png(image[..., np.newaxis]).numpy() for image in trained.test.images[:3]]
    alone = run_signature("pictures", encoded=np.array(good, object))
    mixed = run_signature("pictures", encoded=np.array([good[0], b"no picture", *good[1:]], object))
    assert [bool(problem) for problem in mixed["problem"]] == [False, True, False, False]
    assert [output[1].tolist() for output in (mixed["digit"], mixed["confidence"])] == [-1, 0.0]
    assert not mixed["probabilities"][1].any()
    for name, output in alone.items():
        others = np.delete(mixed[name], 1, axis=0)
        if name in ("probabilities", "confidence"):  # A batch of another size is rounded differently on some CPUs.
            assert np.abs(others - output).max() < TOLERANCE
        else:
            assert np.array_equal(others, output)
