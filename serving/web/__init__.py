"""A page on which to draw a digit, and the small server behind it: `digits web`.

    browser -> limits.py (connections) -> middleware.py (host, headers) -> app.py (page, predict, probes)
    app.py -> AsyncDigitClient -> model server
           -> kept_pictures.py, with --collect: corrected pictures on the disk

In: drawings and photos from a browser. Out: predictions as JSON. Next: page/page.js, which the browser runs.
"""
