"""A page on which to draw a digit, and the small server behind it: `python -m serving web`.

    browser -> middleware.py (host, headers) -> app.py (page, predict, probes) -> AsyncDigitClient -> model server

In: drawings and photos from a browser. Out: predictions as JSON. Next: page/page.js, which the browser runs.
"""
