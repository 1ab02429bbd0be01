"""The report, its figures and the model card, from a run that is made up: 20 digits, some of them wrong."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg

from trainer.command_line import command_line
from trainer.config import TrainConfig, as_flags, resolve
from trainer.data.sources import SOURCES
from trainer.evaluation.figures import _window_means, curve, save_figures
from trainer.evaluation.metrics import Evaluation, paired_difference, score
from trainer.evaluation.model_card import write_model_card
from trainer.evaluation.report import write_report
from trainer.evaluation.story import Story

LABELS = np.tile(np.arange(10, dtype=np.uint8), 2)
IMAGES = np.random.default_rng(0).integers(0, 255, (20, 28, 28), np.uint8)


def evaluation_of(digits: np.ndarray, confidence: float = 0.9996) -> Evaluation:
    probabilities = np.full((20, 10), (1 - confidence) / 9, np.float32)
    probabilities[np.arange(20), digits] = confidence
    return score(probabilities, LABELS, loss=0.1)


def some_rows(epochs: int = 2) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(5, 10 * epochs + 1, 5):
        values = {"loss": 1 / step, "accuracy": 1 - 1 / step, "learning_rate": 0.1}
        rows.append({"kind": "train", "step": step, "epoch": step / 10, **values})
        if step % 10 == 0:
            rows.append({"kind": "validation", "step": step, "loss": 2 / step, "accuracy": 1 - 2 / step})
    return rows


def story_of(outcome: str = "Published as version 7 in models/digits/7.", **fields: Any) -> Story:
    config = resolve("quickstart", flags={"run": "r", "artifacts": Path("artifacts"), "seed": 3})
    return Story(config, outcome, outcome.startswith("Published"), {"network": "cnn & more"}, **fields)


class Page(HTMLParser):
    """Checks that every element is closed, and collects what the page would load."""

    VOID = ("meta", "img", "link", "br", "path", "use", "rect")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.images_without_words = 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        named = dict(attributes)
        self.sources += [named[name] or "" for name in ("src", "href") if name in named]
        self.images_without_words += tag == "img" and not named.get("alt")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def words_of(page: str) -> str:
    """The text of a page, without its elements."""
    return html.unescape(re.sub(r"<[^>]+>", "", page))


def report_of(tmp_path: Path, story: Story, evaluation: Evaluation) -> str:
    write_report(tmp_path / "report.html", story, evaluation, IMAGES, some_rows())
    return (tmp_path / "report.html").read_text()


def test_the_report_is_one_sound_page_that_loads_nothing(tmp_path: Path) -> None:
    digits = LABELS.copy()
    digits[3] = 5
    text = report_of(
        tmp_path, story_of(digests={"test": "abc"}, environment={"revision": "1234"}), evaluation_of(digits)
    )
    page = Page(text)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.images_without_words == 0
    assert len(text) < 2 * 2**20
    for part in (
        "95.00&nbsp;%",
        "cnn &amp; more",
        "predicted 5 (&gt;99&nbsp;%), actually&nbsp;3",
        "SHA-256 of the test split",
        "CC BY 4.0",
        "1234",
        command_line("serve", "artifacts/models/digits", package="serving"),
    ):
        assert part in text
    assert command_line("train", "--preset", "quickstart", "--seed", 3) in words_of(text)
    assert not re.search(r"\d%", re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", text, flags=re.DOTALL)), "one style"
    assert len(set(re.findall(r'\bid="([^"]+)"', text))) == len(re.findall(r'\bid="([^"]+)"', text))


def test_the_charts_follow_the_dark_mode(tmp_path: Path) -> None:
    charts = re.findall(r"<svg.*?</svg>", report_of(tmp_path, story_of(), evaluation_of(LABELS)), flags=re.DOTALL)
    assert len(charts) == 4
    for chart in charts:
        assert 'role="img"' in chart
        assert "var(--" in chart
        assert not re.search(r"#[0-9a-f]{6}\b", chart), "no colour is fixed"
        assert "<text" in chart, "text is text"


def test_the_report_of_a_refused_guesser_says_so_and_does_not_praise_its_calibration(tmp_path: Path) -> None:
    guesser = evaluation_of(np.zeros(20, np.uint8), confidence=0.1001)
    text = report_of(tmp_path, story_of("Not published: test accuracy is 10.00 %"), guesser)
    assert "<strong>Not published</strong>Test accuracy is 10.00&nbsp;%" in text
    assert "calibration error" not in text
    assert "nan" not in re.sub(r'data:image/png;base64,[^"]*', "", text)
    assert f"change the limits of the gate.{command_line('publish', 'artifacts/runs/r')}" in words_of(text)


def test_the_gate_box_shows_limit_difference_and_changed_digits(tmp_path: Path) -> None:
    comparison = {
        "version": 6,
        "role": "the served version",
        "accuracy": 0.95,
        "limit": 0.945,
        "difference": 0.0,
        "newly_wrong": 1,
        "newly_correct": 1,
        "p_value": 0.75,
        "changed": [
            {"position": 12, "label": 2, "before": 2, "now": 8},
            {"position": 3, "label": 3, "before": 5, "now": 3},
        ],
    }
    gate = {"accuracy": 0.95, "min_accuracy": 0.9, "tolerance": 0.005, "limit": 0.945, "significance": 0.01}
    text = report_of(tmp_path, story_of(gate={**gate, "comparisons": [comparison]}), evaluation_of(LABELS))
    for part in (
        "94.50&nbsp;%",
        "the served version, 6",
        "+0.00 points; 95&nbsp;% interval",
        "p = 0.75",
        "was 5, now 3",
    ):
        assert part in text
    assert "was 2, <b>now 8</b>" in text
    assert "the gate refuses below 0.01" in text
    untested = story_of(gate={**gate, "significance": 0.0, "comparisons": [comparison]})
    assert "p = 0.75; this gate does not require it" in report_of(tmp_path, untested, evaluation_of(LABELS))
    alone = report_of(tmp_path, story_of(gate={**gate, "comparisons": []}), evaluation_of(LABELS))
    assert "no version was served before" in alone


def test_the_interval_of_a_paired_difference_contains_zero_for_equal_changes_only() -> None:
    difference, low, high = paired_difference(20, 20, 10_000)
    assert difference == 0.0
    assert low == pytest.approx(-high)
    assert high == pytest.approx(1.96 * np.sqrt(40) / 10_000, rel=0.05), "as the plain Wald interval for many changes"
    difference, low, high = paired_difference(40, 10, 10_000)
    assert difference == pytest.approx(0.003)
    assert 0 < low < 0.003 < high


def test_training_values_are_averaged_over_windows_of_equal_length() -> None:
    rows = [
        {"kind": "train", "step": step, "epoch": step / 10, "loss": loss}
        for step, loss in ((10, 4.0), (11, 100.0), (20, 1.0), (30, 2.0))
    ]
    epochs, means = _window_means(rows, "loss")
    assert len(epochs) == len(means) == 4
    assert np.mean(means) == pytest.approx((10 * 4 + 100 + 9 * 1 + 10 * 2) / 30, rel=0.1), "a row counts as its steps"
    assert max(means) < 20, "one bad step of many does not make a spike of its own height"


@pytest.mark.parametrize("losses", [(1.6, 0.06), (0.16, 0.02), (0.045, 0.03), (1.1, 0.9), (2.0, 0.001)])
def test_the_axis_of_the_loss_has_two_labels_at_least(losses: tuple[float, float]) -> None:
    rows = [
        {"kind": kind, "step": step, "epoch": step / 10, "loss": loss}
        for step, loss in zip((10, 20), losses, strict=True)
        for kind in ("train", "validation")
    ]
    figure = curve(rows, "loss")
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
    labels = [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high]
    assert 2 <= len([label for label in labels if label]) <= 10, labels


def test_figures_are_drawn_for_a_model_that_never_predicts_a_digit_and_for_a_run_without_rows(tmp_path: Path) -> None:
    paths = save_figures(tmp_path, [], evaluation_of(np.zeros(20, np.uint8)), IMAGES)
    assert {path.stem for path in paths} == {"curves", "samples", "worst_mistakes", "confusion", "reliability"}


def test_the_model_card_has_a_header_for_the_hub_and_says_whether_it_is_published(tmp_path: Path) -> None:
    evaluation = evaluation_of(LABELS)
    write_model_card(tmp_path / "card.md", story_of(digests={"train": "abc"}), evaluation)
    text = (tmp_path / "card.md").read_text()
    header = yaml.safe_load(text.split("---\n")[1])
    assert header["license"] == "apache-2.0"
    assert header["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 1.0}]
    for part in (
        "# r\n",
        "## Intended use",
        "DigitClient",
        "curl -d @-",
        "grpcurl",
        "SHA-256 of the train split: `abc`",
    ):
        assert part in text
    write_model_card(tmp_path / "card.md", story_of("Not published: too low"), evaluation)
    text = (tmp_path / "card.md").read_text()
    assert "# r (not published)" in text
    assert "No version of this model is served" in text


def test_the_model_card_shows_names_as_they_are(tmp_path: Path) -> None:
    """A run may be named `*a*|[x](y)`: in the card it became emphasis, a link and a table cell."""
    config = resolve("quickstart", flags={"run": "*a*|[x](y)"})
    story = Story(config, "Published in /models/<b>\n# not a heading", True, {"no|te": "1 | 2"})
    write_model_card(tmp_path / "card.md", story, evaluation_of(LABELS))
    card = (tmp_path / "card.md").read_text()
    assert "\n# \\*a\\*\\|\\[x\\](y)\n\nPublished in /models/\\<b\\> \\# not a heading\n" in card
    assert "| no\\|te | 1 \\| 2 |" in card
    assert yaml.safe_load(card.split("---\n")[1])["model-index"][0]["name"] == "*a*|[x](y)"


def test_every_data_set_has_a_source() -> None:
    assert set(get_args(get_type_hints(TrainConfig)["dataset"])) == set(SOURCES)


def test_the_flags_of_a_config_give_its_settings_again() -> None:
    config = resolve("fast", flags={"seed": 7, "deterministic": True, "publish": False, "learning_rate": 0.5})
    flags = as_flags(config)
    assert flags[:2] == ["--preset", "fast"]
    assert {"--deterministic", "--no-publish"} <= set(flags)
    assert json.dumps(flags[flags.index("--learning-rate") + 1]) == '"0.5"'
