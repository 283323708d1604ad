"""Prints the development requirements of pyproject.toml, one a line, for pip."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
print("\n".join(project["optional-dependencies"]["dev"]).replace(" ", ""))
