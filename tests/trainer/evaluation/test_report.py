from pathlib import Path

import numpy as np

from trainer.evaluation.metrics import score
from trainer.evaluation.report import Story, write_model_card


def test_the_model_card_shows_names_as_they_are(tmp_path: Path) -> None:
    """A run may be named `*a*|[x](y)`: in the card it became emphasis, a link and a table cell."""
    evaluation = score(np.eye(10, dtype=np.float32), np.arange(10, dtype=np.uint8), loss=0.0)
    story = Story("*a*|[x](y)", "Published in /models/<b>\n# not a heading", True, {"no|te": "1 | 2"}, {})
    write_model_card(tmp_path / "card.md", story, evaluation)
    card = (tmp_path / "card.md").read_text()
    assert card.startswith("# Model card: \\*a\\*\\|\\[x\\](y)\n\nPublished in /models/\\<b\\> \\# not a heading\n")
    assert "| no\\|te | 1 \\| 2 |" in card
