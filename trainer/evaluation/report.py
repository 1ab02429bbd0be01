"""Writes a run's HTML report and its model card.

The report is one file with its pictures embedded, so that it can be mailed or kept as a build artefact.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from trainer.evaluation.metrics import Evaluation
from trainer.percent import percent

STYLE = """
:root { color-scheme: light dark; --line: #8884; --ok: #2f855a; --bad: #c53030; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem }
.status { font-weight: 600 } .ok { color: var(--ok) } .bad { color: var(--bad) }
.figures { display: flex; flex-wrap: wrap; gap: 2rem } .figures figure { margin: 0; flex: 1 1 auto; max-width: 16rem }
.figures strong { display: block; font-size: 1.8rem } table { border-collapse: collapse }
td, th { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100%; background: white; border-radius: 6px; margin: .5rem 0 }
code { font-size: .9em; overflow-wrap: anywhere }
"""

CAPTIONS = {
    "curves": "Training",
    "samples": "Predictions on unseen digits",
    "worst_mistakes": "Most confident mistakes",
    "confusion": "Confusion matrix",
    "per_class": "Per digit",
    "reliability": "Confidence and accuracy",
}


@dataclass(frozen=True)
class Story:
    """The facts of a run that its report shows."""

    run: str
    outcome: str
    """One sentence: the version that was published, or why none was."""
    succeeded: bool
    facts: dict[str, str]
    """Name and value: data, model, devices, times."""
    config: dict[str, object]
    gate: dict[str, Any] = field(default_factory=dict)
    """What the gate required and compared, as `trainer.publishing.gate.Verdict.to_json()` has it; empty without a gate."""


def write_report(path: Path, story: Story, evaluation: Evaluation, figures: Sequence[Path]) -> None:
    """Write the report to `path`, with the PNG files `figures` embedded."""
    low, high = evaluation.accuracy_interval
    tiles = (
        (percent(evaluation.accuracy), f"test accuracy (95 % interval {percent(low)} to {percent(high)})"),
        (
            f"{int((evaluation.digits != evaluation.labels).sum())}",
            f"mistakes in {len(evaluation.labels):,} test digits",
        ),
        (percent(evaluation.calibration_error), "calibration error"),
    )
    page = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(story.run)} - {percent(evaluation.accuracy)}</title>
<style>{STYLE}</style>
<h1>{escape(story.run)}</h1>
<p class="status {"ok" if story.succeeded else "bad"}">{escape(story.outcome)}</p>
<div class="figures">{"".join(f"<figure><strong>{value}</strong>{label}</figure>" for value, label in tiles)}</div>
<h2>Facts</h2>
{_table(story.facts)}
{_gate(story.gate)}
{"".join(_picture(figure) for figure in figures)}
<h2>Digit by digit</h2>
{_per_digit(evaluation)}
<h2>Config</h2>
<details><summary>Every setting of this run</summary>{_table(story.config)}</details>
</html>
"""
    path.write_text(page)


def write_model_card(path: Path, story: Story, evaluation: Evaluation) -> None:
    """Write a Markdown model card (Mitchell et al., "Model Cards for Model Reporting", 2019) to `path`."""
    low, high = evaluation.accuracy_interval
    facts = "\n".join(f"| {_markdown(name)} | {_markdown(value)} |" for name, value in story.facts.items())
    hardest = sorted(range(len(evaluation.recall)), key=lambda digit: evaluation.recall[digit])[:3]
    path.write_text(
        f"""# Model card: {_markdown(story.run)}

{_markdown(story.outcome)}

| fact | value |
| --- | --- |
{facts}

## Intended use

Recognising one handwritten digit (0 to 9) in a picture. The signature `pictures` takes a photograph or scan as it is: PNG,
JPEG, BMP or GIF of any size, dark on light or light on dark. The served graph prepares it. The signature `serving_default`
takes images in MNIST's form: uint8 [28, 28], 0 = paper, 255 = ink, the digit fitted into 20x20 and centred by mass. Not
meant for several digits in one picture, for letters, or for printed type.

## Performance on unseen data

- Accuracy: {percent(evaluation.accuracy)} on {len(evaluation.labels):,} test digits, 95 % interval {percent(low)} to
  {percent(high)} (Wilson).
- Mean cross-entropy: {evaluation.loss:.4f} nats. Expected calibration error: {percent(evaluation.calibration_error)}.
- Lowest recall: {", ".join(f"{digit} ({percent(evaluation.recall[digit])})" for digit in hardest)}.

No setting and no checkpoint was chosen by the test split. Only the gate uses the score.

## Limits

The model always returns one of ten digits, also for a picture of something else, though often with low confidence. The
training data covers the writers of the data set named above; other hands, pens and countries may score lower.
"""
    )


def _markdown(text: str) -> str:
    """Plain text for Markdown: a run may be named `*` or `[x](y)`, and a path may hold any character."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _table(rows: dict[str, object] | dict[str, str]) -> str:
    cells = (
        f"<tr><th>{escape(name)}</th><td><code>{escape(str(value))}</code></td></tr>" for name, value in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"


def _gate(gate: dict[str, Any]) -> str:
    """The limit that the gate set, and how the model differs from each live version that it was compared with."""
    if not gate:
        return ""
    rows = {
        "accuracy": percent(gate["accuracy"]),
        "limit": f"{percent(gate['limit'])}: at least {percent(gate['min_accuracy'])}, and at most "
        f"{percent(gate['tolerance'])} below the versions compared with",
    }
    for one in gate["comparisons"]:
        rows[f"{one['role']}, {one['version']}"] = (
            f"{percent(one['accuracy'])}, difference {100 * one['difference']:+.2f} points; digits newly wrong: "
            f"{one['newly_wrong']}, newly correct: {one['newly_correct']} (exact McNemar test: p = {one['p_value']:.2g}, "
            f"refused below {gate['significance']:g})"
        )
    return f"<h2>Gate</h2>{_table(rows)}{''.join(map(_changed_digits, gate['comparisons']))}"


def _changed_digits(comparison: dict[str, Any]) -> str:
    if not comparison["changed"]:
        return ""
    head = "".join(f'<th class="number">{name}</th>' for name in ("test digit", "label", "before", "now"))
    rows = "".join(
        "<tr>" + "".join(f'<td class="number">{digit[name]}</td>' for name in ("position", "label", "before", "now"))
        for digit in comparison["changed"]
    )
    count = comparison["newly_wrong"] + comparison["newly_correct"]
    listed = "" if count == len(comparison["changed"]) else f", the first {len(comparison['changed'])}"
    summary = f"{count} digits changed from version {comparison['version']}{listed}"
    return f"<details><summary>{summary}</summary><table><tr>{head}</tr>{rows}</table></details>"


def _picture(figure: Path) -> str:
    caption = CAPTIONS[figure.stem]
    data = base64.b64encode(figure.read_bytes()).decode()
    return f'<h2>{caption}</h2><img alt="{caption}" src="data:image/png;base64,{data}">'


def _per_digit(evaluation: Evaluation) -> str:
    head = "".join(
        f'<th class="number">{name}</th>' for name in ("digit", "examples", "precision", "recall", "F1", "predicted as")
    )
    rows = []
    for digit, counts in enumerate(evaluation.confusion):
        others = sorted(
            ((count, other) for other, count in enumerate(counts) if other != digit and count), reverse=True
        )
        mistaken = ", ".join(f"{other} ({count})" for count, other in others[:3]) or "-"
        values = (
            digit,
            counts.sum(),
            percent(evaluation.precision[digit]),
            percent(evaluation.recall[digit]),
            percent(evaluation.f1[digit]),
            mistaken,
        )
        rows.append("<tr>" + "".join(f'<td class="number">{value}</td>' for value in values) + "</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"
