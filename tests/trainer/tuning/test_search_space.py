"""`--vary` texts: what they mean, and which are refused before anything is trained."""

import numpy as np
import pytest

from trainer.config import resolve
from trainer.errors import ConfigError
from trainer.tuning.search_space import Choice, Range, check_values, parse


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("model=mlp,cnn", Choice("model", ("mlp", "cnn"))),
        ("global_batch_size=32,64", Choice("global_batch_size", (32, 64))),
        ("jit_compile=true,false", Choice("jit_compile", (True, False))),
        ("dropout=0:0.5", Range("dropout", 0.0, 0.5, is_log=False, is_whole=False)),
        ("learning_rate=1e-4:1e-2:log", Range("learning_rate", 1e-4, 1e-2, is_log=True, is_whole=False)),
        ("early_stopping_patience=1:9", Range("early_stopping_patience", 1, 9, is_log=False, is_whole=True)),
    ],
)
def test_a_text_describes_a_dimension(text, dimension):
    assert parse(text) == dimension


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("dropout", "NAME=A,B,C"),
        ("droput=0:0.5", "a setting of"),
        ("run=a,b", "must be the same in all trials"),
        ("dataset=mnist,idx", "must be the same in all trials"),
        ("deterministic=true,false", "must be the same in all trials"),
        ("dropout=0:half", "'half' is not a number"),
        ("learning_rate=-inf:1", "'-inf' is too large"),
        ("dropout=nan,0.1", "'nan' is not a number"),
        ("seed=0.5:2", "'0.5' is not a number"),
        ("dropout=0.5:0.1", "LOW < HIGH"),
        ("dropout=0:0.5:log", "0 < LOW"),
        ("dropout=0.1:0.5:cubic", "NAME=LOW:HIGH"),
        ("model=mlp:cnn", "of numbers"),
        ("jit_compile=yes,no", "neither true nor false"),
    ],
)
def test_a_wrong_text_is_refused_with_what_is_expected(text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        parse(text)


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["dropout=0.1:2"], "dropout is"),
        (["model=cnn,lente"], "model is 'lente'"),
        (["seed=-5:5"], "seed is -5"),
        (["dropout=0:0.5", "dropout=0:0.1"], "given twice"),
        (["global_batch_size=32:64"], "global_batch_size=32:64 with 2 replicas: .* global_batch_size=A,B,C"),
        (["global_batch_size=32,47"], "global_batch_size is 47 with 2 replicas"),
    ],
)
def test_values_that_cannot_work_are_refused_before_any_trial(texts, complaint):
    with pytest.raises(ConfigError, match=complaint):
        check_values(resolve("quickstart", flags={"replicas": 2}), [parse(text) for text in texts])


@pytest.mark.parametrize("text", ["ema_decay=0.99:0.9999", "ema_decay=0.9951:0.9995:log", "learning_rate=1e-9:2e-9"])
def test_rounded_settings_stay_in_a_narrow_range_and_are_told_apart(text):
    dimension = parse(text)
    values = np.linspace(dimension.low, dimension.high, 100).tolist()
    settings = [dimension.setting(value) for value in values]
    assert all(dimension.low <= setting <= dimension.high for setting in settings)
    assert all(type(setting) is float for setting in settings)
    assert len(set(settings)) > 30
