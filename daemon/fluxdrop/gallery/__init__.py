"""The gallery, outputs/index.html: a page that shows the results without a server.

The page is the same for all results. Its data is in outputs/.gallery/, a few hundred results a
file, so that publishing a result rewrites little and opening the page reads little.
"""
