"""Settings to vary -> the trials of a search, compared on validation data.

    search_space.py (--vary texts -> the config of each trial) -> search.py (train, compare, table, figure)

In: a config and what to vary. Out: one run per trial and `<artifacts>/tune/<run>/`. Next: `python -m trainer publish`.
"""
