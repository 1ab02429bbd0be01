"""Which names are versions, and which versions a policy selects."""

import pytest

from serving.local_server.versions.discovery import VersionPolicy, find_versions, parse_version


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("7", 7),
        ("00017", 17),
        ("20261122134501", 20261122134501),
        ("+7", 7),
        ("-7", -7),
        (" 7 ", 7),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        ("9" * 5000, None),
        ("", None),
        ("v7", None),
        ("7.tmp", None),
        (".7", None),
        ("7_0", None),
        ("0x7", None),
        ("7e1", None),
        ("\N{ARABIC-INDIC DIGIT SEVEN}", None),  # a digit to Python, not to TensorFlow Serving
        ("--7", None),
    ],
)
def test_a_name_is_a_version_if_tensorflow_serving_parses_it_as_one(name, version):
    assert parse_version(name) == version


def test_a_plain_file_and_a_directory_both_count(tmp_path):
    (tmp_path / "8").write_text("")
    (tmp_path / "7").mkdir()
    (tmp_path / "7.retired").mkdir()
    assert set(find_versions(tmp_path)) == {7, 8}


def test_the_last_in_byte_order_of_two_names_with_one_number_is_served(tmp_path):
    for name in ("7", "007"):
        (tmp_path / name).mkdir()
    assert find_versions(tmp_path) == {7: tmp_path / "7"}


def test_a_name_that_is_not_unicode_is_skipped(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / b"\xff7".decode(errors="surrogateescape")).mkdir()
    assert set(find_versions(tmp_path)) == {7}


def test_policies_choose_latest_all_or_specific():
    found = dict.fromkeys((3, 10, 9))
    assert set(VersionPolicy().choose(found)) == {10}
    assert set(VersionPolicy.latest(2).choose(found)) == {9, 10}
    assert set(VersionPolicy.all().choose(found)) == {3, 9, 10}
    assert set(VersionPolicy.specific(3, 4).choose(found)) == {3}


def test_a_policy_that_selects_nothing_is_rejected():
    with pytest.raises(ValueError, match="at least 1"):
        VersionPolicy.latest(0)
    with pytest.raises(ValueError, match="at least one version"):
        VersionPolicy.specific()
