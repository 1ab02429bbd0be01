"""Which versions of a model are served.

In: a base path and a version policy. Out: a lease on a loaded version for each request, and the state of every version.
`discovery.py` lists the directories, `lifecycle.py` decides the next step, `manager.py` takes it; next: `model/`.
"""
