"""The run's one-page HTML report and its model card, from what the run measured.

The page holds its pictures inside, so that it can be mailed, or kept as a build artefact, as one file.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from trainer.evaluation.metrics import Evaluation

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
    "curves": "Loss and accuracy while training",
    "samples": "Predictions on unseen digits",
    "worst_mistakes": "The mistakes made with the most confidence",
    "confusion": "Confusion matrix",
    "per_class": "Per digit",
    "reliability": "Does confidence mean what it says?",
}


@dataclass(frozen=True)
class Story:
    """What the report tells about a run."""

    run: str
    outcome: str
    """One sentence: published as which version, or why not."""
    succeeded: bool
    facts: dict[str, str]
    """Name and value of what is worth knowing: data, model, devices, times."""
    config: dict[str, object]


def write_report(path: Path, story: Story, evaluation: Evaluation, figures: Sequence[Path]) -> None:
    """Write the page to `path`; `figures` are PNG files to embed."""
    low, high = evaluation.accuracy_interval
    tiles = (
        (f"{evaluation.accuracy:.2%}", f"test accuracy (95 % interval {low:.2%} to {high:.2%})"),
        (
            f"{int((evaluation.digits != evaluation.labels).sum())}",
            f"mistakes in {len(evaluation.labels):,} test digits",
        ),
        (f"{evaluation.calibration_error:.2%}", "calibration error"),
    )
    page = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(story.run)} - {evaluation.accuracy:.2%}</title>
<style>{STYLE}</style>
<h1>{escape(story.run)}</h1>
<p class="status {"ok" if story.succeeded else "bad"}">{escape(story.outcome)}</p>
<div class="figures">{"".join(f"<figure><strong>{value}</strong>{label}</figure>" for value, label in tiles)}</div>
<h2>Facts</h2>
{_table(story.facts)}
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
    facts = "\n".join(f"| {name} | {value} |" for name, value in story.facts.items())
    hardest = sorted(range(len(evaluation.recall)), key=lambda digit: evaluation.recall[digit])[:3]
    path.write_text(
        f"""# Model card: {story.run}

{story.outcome}

| fact | value |
| --- | --- |
{facts}

## Intended use

Recognising single handwritten digits (0 to 9), prepared as MNIST's are: 28x28 pixels, white ink (255) on black paper (0),
fitted into 20x20 and centred by mass. Not meant for several digits in one picture, for letters, or for printed type.

## Performance on unseen data

- Accuracy: {evaluation.accuracy:.4f} on {len(evaluation.labels):,} test digits, 95 % interval {low:.4f} to {high:.4f}
  (Wilson).
- Mean cross-entropy: {evaluation.loss:.4f} nats. Expected calibration error: {evaluation.calibration_error:.4f}.
- Lowest recall: {", ".join(f"{digit} ({evaluation.recall[digit]:.4f})" for digit in hardest)}.

The test split was scored once, after training; nothing was chosen by it. Only the gate looks at it, to refuse.

## Limits

Whatever is shown to it, the model answers with one of ten digits; a picture of something else gets a digit too, though
often with little confidence. The writers are those of the data set named above: hands, pens and countries that it does
not cover may do worse.
"""
    )


def _table(rows: dict[str, object] | dict[str, str]) -> str:
    cells = (
        f"<tr><th>{escape(name)}</th><td><code>{escape(str(value))}</code></td></tr>" for name, value in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"


def _picture(figure: Path) -> str:
    caption = CAPTIONS[figure.stem]
    data = base64.b64encode(figure.read_bytes()).decode()
    return f'<h2>{caption}</h2><img alt="{caption}" src="data:image/png;base64,{data}">'


def _per_digit(evaluation: Evaluation) -> str:
    head = "".join(
        f'<th class="number">{name}</th>' for name in ("digit", "examples", "precision", "recall", "F1", "mistaken for")
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
            f"{evaluation.precision[digit]:.4f}",
            f"{evaluation.recall[digit]:.4f}",
            f"{evaluation.f1[digit]:.4f}",
            mistaken,
        )
        rows.append("<tr>" + "".join(f'<td class="number">{value}</td>' for value in values) + "</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"
