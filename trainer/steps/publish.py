"""The last step of a run: publish the candidate if it passes the gate, and write the report of what happened."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from datetime import UTC, datetime

from percent import percent
from trainer.command_line import command_line, tensorboard_line
from trainer.evaluation.model_card import model_card, write_model_card
from trainer.evaluation.story import Story
from trainer.publishing.gate import Gate, GateError
from trainer.publishing.publish import EXTRA_FINGERPRINT, find_published, publish
from trainer.publishing.verify_export import Verify, VerifyThere
from trainer.publishing.versions import RETIRED_SUFFIX
from trainer.runs.console import Console, print_to_stderr
from trainer.runs.result import RunResult
from trainer.runs.tracking import read_rows
from trainer.steps.evaluate import Candidate
from trainer.training.model import weights_digest


def publish_and_report(
    candidate: Candidate,
    result: RunResult,
    console: Console,
    *,
    verify: VerifyThere | None,
    once: bool = False,
    show: Callable[[], None] = lambda: None,
) -> None:
    """Publish the candidate unless its config says not to, and write and print the report, also of a failure.

    The figures are drawn while another process verifies the exported files: on two cores that costs no time.

    Args:
        candidate: the model, its evaluation and its data.
        result: gets the outcome, what the gate compared, and the version.
        console: prints what is running, the scores and the outcome.
        verify: verifies the exported files in another process; None if the config says not to publish.
        once: do nothing if this very model was published before.
        show: is called once, together with the drawing of the figures.

    Raises:
        RunError: the gate or the verification refused it, or it could not be written.
    """
    # Each succeeds once; after an error it is called again.
    show, draw_figures = functools.cache(show), functools.cache(functools.partial(_draw_figures, candidate))

    def draw() -> None:
        show()
        draw_figures()

    def meanwhile() -> None:
        with contextlib.suppress(Exception):  # It must not stop the publication. `report` draws again, and fails.
            draw()

    try:
        if verify:
            there = functools.partial(verify, meanwhile=meanwhile)
            result.outcome = _publish(candidate, result, console, once=once, verify=there)
        else:
            result.outcome = "Trained, not published."
    except Exception as error:
        if isinstance(error, GateError) and error.verdict:
            result.gate = error.verdict.to_json()
        result.outcome = f"Not published: {error}"
        report(candidate, result, console, succeeded=False, draw=draw)
        raise
    report(candidate, result, console, succeeded=True, draw=draw)


def report(
    candidate: Candidate,
    result: RunResult,
    console: Console,
    *,
    succeeded: bool,
    draw: Callable[[], None] | None = None,
) -> None:
    """Write figures, report and model card, and print the scores and where everything is.

    The outcome of a failure is left to the error that `trainer/cli.py` prints. `draw` draws the figures, if it has not
    drawn them yet.
    """
    from trainer.evaluation.report import write_report  # Matplotlib, half a second: not before training

    config, evaluation = candidate.config, candidate.evaluation
    story = _story(candidate, result, succeeded=succeeded)
    try:
        with console.phase("Drawing the report"):
            (draw or functools.partial(_draw_figures, candidate))()
            rows, images = read_rows(config.run_dir), candidate.splits.test.images
            write_report(config.run_dir / "report.html", story, evaluation, images, rows)
            write_model_card(config.run_dir / "model_card.md", story, evaluation)
    except OSError as error:
        # A version may be live by now: a page that cannot be written must not look like a failure to publish.
        print_to_stderr(f"warning: cannot write the report: {error}")
    low, high = evaluation.accuracy_interval
    text = f"Test accuracy {percent(evaluation.accuracy)} (95 % interval {percent(low)} to {percent(high)})."
    console.note(text, test_accuracy=evaluation.accuracy, test_accuracy_interval_95=[low, high])
    if extra := candidate.facts.get("extra pictures"):
        console.note(f"Extra pictures: {extra}.", extra=result.extra)
    if succeeded:
        console.note(result.outcome, style="bold green", published=result.published)
    for name, place in (
        ("Report", config.run_dir / "report.html"),
        ("Figures", config.run_dir / "figures"),
        ("TensorBoard", tensorboard_line(config.artifacts / "runs")),
    ):
        console.note(f"{name + ':':<12} {place}")


def _draw_figures(candidate: Candidate) -> None:
    from trainer.evaluation.figures import save_figures  # as in `report`

    run_dir = candidate.config.run_dir
    save_figures(run_dir / "figures", read_rows(run_dir), candidate.evaluation, candidate.splits.test.images)


def _publish(candidate: Candidate, result: RunResult, console: Console, *, once: bool, verify: Verify) -> str:
    """Publish the candidate; return the outcome in one sentence."""
    config = candidate.config
    identity = {"run": config.run, "weights": weights_digest(candidate.model)}
    if once and (folder := find_published(config.model_dir, identity)):
        # An earlier attempt was stopped after it had published.
        result.published = {"version": int(folder.name.removesuffix(RETIRED_SUFFIX)), "folder": str(folder)}
        again = f"; `{command_line('publish', config.run_dir)}` publishes it again"
        return f"Published before, in {folder}{again if folder.name.endswith(RETIRED_SUFFIX) else ''}."
    published = publish(
        candidate.model,
        candidate.evaluation,
        candidate.splits.test,
        model_dir=config.model_dir,
        gate=Gate(
            min_accuracy=config.min_accuracy,
            tolerance=config.tolerance,
            significance=config.significance,
            allow_other_data=config.allow_other_data,
        ),
        now=datetime.now(UTC),
        metadata={
            **identity,
            EXTRA_FINGERPRINT: candidate.splits.extra_fingerprint,
            "facts": candidate.facts,
            "model_card": model_card(_story(candidate, result, succeeded=True), candidate.evaluation),
        },
        verify=verify,
        keep_versions=config.keep_versions,
        console=console,
    )
    result.gate = published.verdict.to_json()
    result.published = {"version": published.version, "folder": str(published.folder), "check": published.check}
    before = f"; before it: {published.served_before}" if published.served_before else ""
    return f"Published as version {published.version} in {published.folder}{before}."


def _story(candidate: Candidate, result: RunResult, *, succeeded: bool) -> Story:
    return Story(
        config=candidate.config,
        outcome=result.outcome,
        succeeded=succeeded,
        facts=candidate.facts,
        gate=result.gate,
        environment=result.environment,
        digests=result.data,
    )
