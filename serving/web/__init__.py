"""A page to draw a digit on, and the small server behind it: `python -m serving web`, with the extra `web`.

browser -> guard (host, headers) -> app (page, predict, probes) -> AsyncDigitClient -> model server
"""
