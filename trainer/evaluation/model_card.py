"""Writes a run's model card in the form of the Hugging Face hub, and the same facts as JSON for a published version.

After M. Mitchell et al., "Model Cards for Model Reporting", 2019.
"""

import json
import re
from pathlib import Path
from typing import Any

from percent import percent
from serving.contract import ENCODED, IMAGES, MODEL_NAME, PICTURES, SIGNATURE
from trainer.data.sources import SOURCES
from trainer.evaluation.metrics import Evaluation
from trainer.evaluation.story import Story

INTENDED_USE = (
    f"Recognising one handwritten digit (0 to 9) in a picture. The signature `{PICTURES}` takes a photograph or scan "
    "as it is: PNG, JPEG, BMP or GIF of any size, dark on light or light on dark; the served graph prepares it. The "
    f"signature `{SIGNATURE}` takes `{IMAGES}` in MNIST's form: uint8 [N, 28, 28], 0 = paper, 255 = ink, the digit "
    "fitted into 20x20 and centred by mass. Not meant for several digits in one picture, for letters, or for printed type."
)

LIMITS = (
    "The model returns one of ten digits for every picture in which it finds ink, also for a picture of something "
    "else, though often with low confidence. The training data covers the writers of its data set: other hands, pens "
    "and countries may score lower. Photographs are scored separately: `python -m benchmarks.pictures VERSION` "
    "measures 5,000 rendered photographs of test digits, and docs/benchmarks.md has the result of the preset `accurate`."
)

USAGE = {
    "Python": """from pathlib import Path
from serving.client import DigitClient

with DigitClient("localhost:8500") as client:
    (prediction,) = client.predict_pictures([Path("photo.jpg").read_bytes()])
    print(prediction.digit, prediction.confidence)""",
    "REST": f"""echo "{{
  \\"signature_name\\": \\"{PICTURES}\\", \\"instances\\": [{{\\"b64\\": \\"$(base64 -w0 photo.jpg)\\"}}]
}}" | curl -d @- http://localhost:8501/v1/models/{MODEL_NAME}:predict""",
    "grpcurl, with the repositories of TensorFlow and TensorFlow Serving beside each other": f"""echo "{{
  \\"model_spec\\": {{\\"name\\": \\"{MODEL_NAME}\\", \\"signature_name\\": \\"{PICTURES}\\"}},
  \\"inputs\\": {{\\"{ENCODED}\\": {{\\"dtype\\": \\"DT_STRING\\", \\"tensor_shape\\": {{\\"dim\\": [{{\\"size\\": 1}}]}},
    \\"string_val\\": [\\"$(base64 -w0 photo.jpg)\\"]}}}}
}}" | grpcurl -plaintext -d @ -import-path serving -import-path tensorflow \\
    -proto tensorflow_serving/apis/prediction_service.proto localhost:8500 tensorflow.serving.PredictionService/Predict""",
}
"""How to query a served version, by language."""


def model_card(story: Story, evaluation: Evaluation) -> dict[str, Any]:
    """Return the facts of the card, as plain values for JSON."""
    source = SOURCES[story.config.dataset]
    low, high = evaluation.accuracy_interval
    return {
        "name": story.config.run,
        "license": "Apache-2.0",
        "intended_use": INTENDED_USE,
        "limits": LIMITS,
        "training_data": {
            "dataset": story.config.dataset,
            "title": source.title,
            "url": source.url,
            "license": source.licence,
            "sha256": story.digests,
        },
        "metrics": {
            "test_examples": len(evaluation.labels),
            "accuracy": evaluation.accuracy,
            "accuracy_interval_95": [low, high],
            "loss": evaluation.loss,
            "calibration_error": evaluation.calibration_error,
            "recall": {str(digit): float(value) for digit, value in enumerate(evaluation.recall)},
        },
        "facts": story.facts,
        "environment": story.environment,
    }


def write_model_card(path: Path, story: Story, evaluation: Evaluation) -> None:
    """Write the card as Markdown, with a YAML header that the Hugging Face hub reads."""
    card = model_card(story, evaluation)
    data, low, high = card["training_data"], *evaluation.accuracy_interval
    lines = "\n".join(
        f"| {_markdown(name)} | {_markdown(value)} |" for name, value in {**story.facts, **story.environment}.items()
    )
    digests = "\n".join(f"- SHA-256 of the {part} split: `{digest}`" for part, digest in story.digests.items())
    hardest = sorted(range(len(evaluation.recall)), key=lambda digit: evaluation.recall[digit])[:3]
    usage = "\n\n".join(f"{language}:\n\n```\n{code}\n```" for language, code in USAGE.items())
    is_published = story.outcome.startswith("Published")
    use = usage if is_published else "No version of this model is served. Once it is published:\n\n" + usage
    path.write_text(
        f"""{_header(story, evaluation)}
# {_markdown(story.config.run)}{"" if is_published else " (not published)"}

{_markdown(story.outcome)}

## Intended use

{INTENDED_USE}

## How to use it

{use}

## Training data

{data["title"]} ({data["url"]}), licence: {data["license"]}.

{digests}

## Metrics

On {len(evaluation.labels):,} test digits. No setting and no checkpoint was chosen by them. Only the gate uses the score.

| metric | value | 95 % interval |
| --- | --- | --- |
| accuracy | {percent(evaluation.accuracy)} | {percent(low)} to {percent(high)} (Wilson) |
| cross-entropy | {evaluation.loss:.4f} nats | |
| calibration error | {percent(evaluation.calibration_error)} | |
{"".join(f"| recall of {digit} | {percent(evaluation.recall[digit])} | |{chr(10)}" for digit in hardest)}
## Limits

{LIMITS}

## Facts

| fact | value |
| --- | --- |
{lines}
"""
    )


def _header(story: Story, evaluation: Evaluation) -> str:
    """Return the YAML block of the hub. JSON strings and lists are YAML too, so values need no other quoting."""
    source = SOURCES[story.config.dataset]
    dataset = source.hub_id or story.config.dataset
    datasets = f"datasets: [{json.dumps(source.hub_id)}]\n" if source.hub_id else ""
    return f"""---
license: apache-2.0
library_name: keras
pipeline_tag: image-classification
tags: ["mnist", "handwritten-digits", "tensorflow-serving"]
{datasets}metrics: ["accuracy"]
model-index:
  - name: {json.dumps(story.config.run)}
    results:
      - task: {{type: image-classification}}
        dataset: {{name: {json.dumps(source.title)}, type: {json.dumps(dataset)}, split: test}}
        metrics:
          - {{type: accuracy, value: {evaluation.accuracy:.6f}}}
---
"""


def _markdown(text: str) -> str:
    """Plain text for Markdown: a run may be named `*` or `[x](y)`, and a path may hold any character."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
