"""The sweep: models of timm and transformers as their users have them, added by one
command and compared on photographs.

`make models` runs it; `python -m support.sweep --help` tells more.
"""
