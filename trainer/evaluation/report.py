"""Writes a run's HTML report: outcome, gate, training, mistakes, confidence, and how to try and to reproduce the model.

The report is one file with its pictures embedded, so that it can be mailed or kept as a build artefact.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from percent import confidence_percent, percent
from serving.contract import CLASSES
from trainer.command_line import command_line
from trainer.config import as_flags
from trainer.data.sources import SOURCES
from trainer.evaluation.figures import CURVES, CURVES_EXPLAINED, curve, reliability
from trainer.evaluation.metrics import Evaluation, paired_difference
from trainer.evaluation.page import chart, charts, commands, digits, facts, page, scroll, table
from trainer.evaluation.story import Story

CHANGED_SHOWN = 24
"""Digits on which a live version and this model differ: at most so many of each kind are shown as pictures."""

SAMPLES = 16
"""First test digits that are shown with their predictions."""

CALIBRATION_FROM = 0.5
"""Least accuracy with which a report praises or blames the calibration: a model that guesses is easily calibrated."""


def write_report(
    path: Path, story: Story, evaluation: Evaluation, images: np.ndarray, rows: Sequence[dict[str, Any]]
) -> None:
    """Write the report to `path`.

    Args:
        path: the HTML file.
        story: the run.
        evaluation: of the test split.
        images: of the test split, uint8 [N, 28, 28].
        rows: the run's metrics, as in metrics.jsonl.
    """
    body = "\n".join(
        (
            _head(story, evaluation),
            _gate(story.gate, images, len(evaluation.labels)),
            _training(rows),
            _mistakes(evaluation, images),
            _confusion(evaluation),
            _per_digit(evaluation),
            _calibration(evaluation),
            _samples(evaluation, images),
            _try(story),
            _reproduce(story),
        )
    )
    path.write_text(page(f"{story.config.run}: {percent(evaluation.accuracy)}", body))


def _head(story: Story, evaluation: Evaluation) -> str:
    low, high = evaluation.accuracy_interval
    tiles = [
        (percent(evaluation.accuracy), f"test accuracy; 95 % interval {percent(low)} to {percent(high)}"),
        (f"{_mistake_count(evaluation):,}", f"mistakes in {len(evaluation.labels):,} test digits"),
    ]
    if evaluation.accuracy >= CALIBRATION_FROM:
        tiles.append(
            (percent(evaluation.calibration_error), "calibration error: confidence minus accuracy, on average")
        )
    boxes = "".join(f"<div><strong>{value}</strong>{label}</div>" for value, label in tiles)
    return f'<h1>{escape(story.config.run)}</h1>{_outcome(story)}<div class="tiles">{boxes}</div>{facts(story.facts)}'


def _outcome(story: Story) -> str:
    # "Published as version 7 in ...", "Not published: ...", "Trained; not published, ...": the verdict, then the rest.
    verdict, rest = re.fullmatch(r"(Not published|\w+)\W*(.*)", story.outcome, re.DOTALL).groups()  # type: ignore[union-attr]
    kind = "ok" if story.succeeded else "bad"
    return f'<p class="status {kind}"><strong>{escape(verdict)}</strong>{escape(rest[:1].upper() + rest[1:])}</p>'


def _gate(gate: dict[str, Any], images: np.ndarray, examples: int) -> str:
    """Return the limit that the gate set, and how the model differs from each live version that it was compared with."""
    if not gate:
        return ""
    rows = {
        "test accuracy": percent(gate["accuracy"]),
        "limit": percent(gate["limit"]),
        "required": f"at least {percent(gate['min_accuracy'])}, and at most {percent(gate['tolerance'])} below each "
        "version that it is compared with",
    }
    if not gate["comparisons"]:
        rows["compared with"] = "nothing: no version was served before"
    parts = ["<h2>Gate</h2>", facts(rows)]
    for one in gate["comparisons"]:
        parts.append(f"<h3>Compared with {one['role']}, {one['version']}</h3>")
        parts.append(facts(_comparison(one, gate["significance"], examples)))
        for title, is_correct in (("Newly correct", True), ("Newly wrong", False)):
            parts.append(_changed(one["changed"], title, images, is_correct=is_correct))
    return "".join(parts)


def _comparison(one: dict[str, Any], significance: float, examples: int) -> dict[str, str]:
    difference, low, high = paired_difference(one["newly_correct"], one["newly_wrong"], examples)
    return {
        "its accuracy": percent(one["accuracy"]),
        "difference": f"{100 * difference:+.2f} points; 95 % interval {100 * low:+.2f} to {100 * high:+.2f}",
        "changed digits": f"{one['newly_correct']} newly correct, {one['newly_wrong']} newly wrong",
        "exact McNemar test": f"p = {one['p_value']:.2g}; "
        + (f"the gate refuses below {significance:g}" if significance else "this gate does not require it"),
    }


def _changed(changed: Sequence[dict[str, Any]], title: str, images: np.ndarray, *, is_correct: bool) -> str:
    chosen = [one for one in changed if (one["now"] == one["label"]) == is_correct][:CHANGED_SHOWN]
    if not chosen:
        return ""
    captions = (
        f"was {one['before']}, now {one['now']}" if is_correct else f"was {one['before']}, <b>now {one['now']}</b>"
        for one in chosen
    )
    pictures = digits((images[one["position"]] for one in chosen), (one["label"] for one in chosen), captions)
    return f"<h3>{title}</h3>{pictures}"


def _training(rows: Sequence[dict[str, Any]]) -> str:
    if not any(row["kind"] == "train" for row in rows):
        return ""
    drawn = (chart(curve(rows, name), title, f"{title} over the epochs") for name, title in CURVES.items())
    return f'<h2>Training</h2>{charts(*drawn)}<p class="muted">{CURVES_EXPLAINED}</p>'


def _mistakes(evaluation: Evaluation, images: np.ndarray) -> str:
    count = _mistake_count(evaluation)
    if not count:
        return "<h2>Mistakes</h2><p>None on the test split.</p>"
    shown = (
        f"the {len(evaluation.worst)} most confident of {count:,}" if count > len(evaluation.worst) else f"all {count}"
    )
    return f"<h2>Mistakes: {shown}</h2>{_gallery(evaluation, images, evaluation.worst)}"


def _samples(evaluation: Evaluation, images: np.ndarray) -> str:
    positions = np.arange(min(SAMPLES, len(images)))
    return f"<h2>The first test digits</h2>{_gallery(evaluation, images, positions)}"


def _gallery(evaluation: Evaluation, images: np.ndarray, positions: np.ndarray) -> str:
    captions = []
    for position in positions:
        digit, label = int(evaluation.digits[position]), int(evaluation.labels[position])
        predicted = f"predicted {digit} ({confidence_percent(evaluation.confidence[position], 0)})"
        captions.append(
            f'<span class="wrong">{escape(predicted)}, actually&nbsp;{label}</span>'
            if digit != label
            else escape(predicted)
        )
    return digits(images[positions], evaluation.labels[positions], captions)


def _confusion(evaluation: Evaluation) -> str:
    """Return the confusion matrix as a table, shaded by mistakes only: correct predictions are too many for one scale."""
    matrix = evaluation.confusion
    most = max(4, int((matrix - np.diag(np.diag(matrix))).max()))
    head = "".join(f'<th scope="col">{digit}</th>' for digit in range(CLASSES))
    rows = []
    for true in range(CLASSES):
        cells = []
        for predicted in range(CLASSES):
            count = int(matrix[true, predicted])
            kind = "hit" if true == predicted else "" if count else "none"
            shade = (
                f' style="background: rgb(var(--shade) / {0.45 * count / most:.2f})"' if count and kind != "hit" else ""
            )
            cells.append(f'<td class="{kind}"{shade}>{count}</td>')
        rows.append(f'<tr><th scope="row">{true}</th>{"".join(cells)}</tr>')
    content = (
        '<table class="matrix"><caption>Rows: the true digit. Columns: the predicted digit.</caption>'
        f'<thead><tr><td aria-label="true digit"></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    return f"<h2>Confusion matrix</h2>{scroll(content, 'Confusion matrix')}"


def _per_digit(evaluation: Evaluation) -> str:
    rows = []
    for digit, counts in enumerate(evaluation.confusion):
        others = sorted(
            ((count, other) for other, count in enumerate(counts) if other != digit and count), reverse=True
        )
        rows.append(
            (
                digit,
                f"{counts.sum():,}",
                percent(evaluation.precision[digit]),
                percent(evaluation.recall[digit]),
                percent(evaluation.f1[digit]),
                ", ".join(f"{other} ({count})" for count, other in others[:3]) or "-",
            )
        )
    head = ("digit", "examples", "precision", "recall", "F1", "mistaken for")
    return f"<h2>Digit by digit</h2>{table(head, rows, 'Digit by digit')}"


def _calibration(evaluation: Evaluation) -> str:
    drawn = chart(
        reliability(evaluation),
        "Accuracy of predictions by their confidence",
        "Accuracy and number of predictions by confidence",
    )
    text = (
        "On the diagonal, predictions of 90 % confidence are correct in 90 % of cases. Bars: 95 % intervals. Below: "
        f"the number of predictions in each bin. The logits are divided by the temperature "
        f"{evaluation.temperature:.3f}, which was fitted on the validation split."
    )
    return f'<h2>Confidence</h2>{charts(drawn)}<p class="muted">{text}</p>'


def _try(story: Story) -> str:
    models = story.config.model_dir
    if not story.outcome.startswith("Published"):
        text = "No version of this model is served. Publish it first:"
        if not story.succeeded:
            text = (
                "No version of this model is served. This command tries again to publish it. Its flags --min-accuracy, "
                "--tolerance and --significance change the limits of the gate."
            )
        return f"<h2>Try it</h2><p>{text}</p>{commands(command_line('publish', story.config.run_dir))}"
    lines = {
        command_line("serve", models, package="serving"): "on this machine; in production: tensorflow/serving",
        command_line("web", package="serving"): "draw a digit on http://127.0.0.1:8080",
        command_line("predict", "photo.jpg", package="serving"): "any picture of one digit",
    }
    return "<h2>Try it</h2>" + commands(*(f"# {remark}\n{line}" for line, remark in lines.items()))


def _reproduce(story: Story) -> str:
    source = SOURCES[story.config.dataset]
    data = {
        "data": f"{source.title} ({source.url})",
        "licence of the data": source.licence,
        **{f"SHA-256 of the {part} split": digest for part, digest in story.digests.items()},
        "seed": story.config.seed,
        **story.environment,
    }
    settings = {name: "none" if value in (None, "") else value for name, value in asdict(story.config).items()}
    return (
        f"<h2>Reproduce</h2>{commands(command_line('train', *as_flags(story.config)))}"
        f"{facts(data)}<details><summary>Every setting of this run</summary>{facts(settings)}</details>"
    )


def _mistake_count(evaluation: Evaluation) -> int:
    return int((evaluation.digits != evaluation.labels).sum())
