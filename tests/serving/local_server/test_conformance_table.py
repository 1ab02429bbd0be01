"""docs/serving-conformance.md and the conformance cases name each other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
CASES = ROOT / "tests" / "serving" / "conformance"
TABLE = ROOT / "docs" / "serving-conformance.md"


def numbers_of_cases() -> set[int]:
    text = "".join(path.read_text() for path in CASES.glob("test_*.py"))
    return {int(number) for number in re.findall(r"^def test_(\d+)_", text, re.MULTILINE)}


def numbers_in_table() -> set[int]:
    numbers = set()
    for line in TABLE.read_text().splitlines():
        cells = line.split("|")
        if len(cells) == 6:
            for first, last in re.findall(r"(\d+)(?: to (\d+))?", cells[4]):
                numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def test_every_row_has_its_cases_and_every_case_its_row():
    assert numbers_in_table() == numbers_of_cases()


def test_there_are_at_least_60_cases_numbered_without_a_gap():
    numbers = numbers_of_cases()
    assert numbers == set(range(1, len(numbers) + 1))
    assert len(numbers) >= 60
