"""What maintainers run: checks of a release, and the pages that the docs site makes of the code."""
