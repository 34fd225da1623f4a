"""Write every dashboard's JSON beside its provisioning."""

from __future__ import annotations

from pathlib import Path

from deploy.dashboards import everything

_FOLDER = Path(__file__).parents[1] / "grafana"

for name, text in everything().items():
    path = _FOLDER / f"{name}.json"
    path.write_text(text, encoding="utf-8")
    print(path.relative_to(_FOLDER.parents[1]))
