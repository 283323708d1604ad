"""Millrace as one importable package: links to the three folders at the top of the repository, where the sources are.
So an installed Millrace takes one name in site-packages. Read next: `ARCHITECTURE.md`.
"""
