"""Settings to vary -> the trials of a search, compared on validation data.

    search_space.py (--vary) -> study.py (Optuna: the next settings) -> pool.py (a process for each trial) -> results.py

In: a config and what to vary; search.py tells the story. Out: one run per trial and `<artifacts>/tune/<run>/`. Next:
`python -m trainer publish`.
"""
