"""outputs/index.html: the results to look at, without a server.

The page is the same for all results; what it shows lies in outputs/.gallery/, a few hundred results
a file, so that publishing one rewrites little and opening the page reads little.
"""
