"""Grafana's dashboards, as Python; `python -m deploy.dashboards` writes them to `deploy/grafana/`.

`promql.py` has the shapes of the queries, `panels.py` the kinds of panel, `frame.py` what is around
them; each of the other files is one dashboard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.dashboards import lanes, overview, shifting, tenants, variants

_MENU = "inControlsMenu"
_BUILD = {
    "overview": overview.build,
    "shifting": shifting.build,
    "variants": variants.build,
    "lanes": lanes.build,
    "tenants": tenants.build,
}


def everything() -> Mapping[str, str]:
    """The JSON of each dashboard, by the name of its file without `.json`."""
    encoder = JSONEncoder()
    found = {}
    for name, build in _BUILD.items():
        plain = _in_sight(json.loads(encoder.encode(build())))
        found[name] = json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return found


def _in_sight(value: Any) -> Any:
    """`value` without the library's wish to hide each link and event in a menu."""
    if isinstance(value, dict):
        return {
            key: _in_sight(each)
            for key, each in value.items()
            if key != "placement" or each != _MENU
        }
    return [_in_sight(each) for each in value] if isinstance(value, list) else value
