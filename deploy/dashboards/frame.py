"""A dashboard around its panels: what is chosen at its top, what is marked, where links lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from deploy.dashboards.panels import BLUE, DATASOURCE, GREY, ORANGE, RED
from deploy.dashboards.promql import MODEL, STEP, grown

TAG = "gearshift"

OVERVIEW = "gearshift-overview"
SHIFTING = "gearshift-shifting"
VARIANTS = "gearshift-variants"
LANES = "gearshift-lanes"
TENANTS = "gearshift-tenants"

# Grafana 11's: later ones bring it up to date themselves, and nothing here needs more.
_SCHEMA = 39

Panel = Builder[model.Panel]
Sections = Mapping[str, Sequence[Panel]]


def board(
    uid: str,
    title: str,
    text: str,
    sections: Sections,
    *,
    tenants: bool,
    onward: dashboard.DashboardLink,
) -> model.Dashboard:
    """One dashboard: its sections one below the other, each a row with panels.

    Args:
        tenants: whether its panels heed the choice of tenant; where not, the choice is not shown,
            and kept for the dashboards that links lead to.
        onward: where a click leads on a panel that has no link of its own.
    """
    frame = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags([TAG])
        .timezone("browser")
        .time("now-15m", "now")
        .refresh("10s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .version(1)
        .variables(_variables(tenants))
        .link(_others())
    )
    for each in EVENTS:
        frame = frame.annotation(each)
    for name, panels in sections.items():
        frame = frame.with_row(dashboard.Row(name))
        for panel in panels:
            frame = frame.with_panel(panel)
    made = frame.build()
    made.schema_version = _SCHEMA
    for number, panel_or_row in enumerate(made.panels or [], start=1):
        panel_or_row.id_val = number
        if isinstance(panel_or_row, model.Panel) and not _linked(panel_or_row):
            assert panel_or_row.field_config is not None
            panel_or_row.field_config.defaults.links = [onward.build()]
    return made


def _linked(panel: model.Panel) -> bool:
    """Whether a click on some field of the panel leads anywhere."""
    config = panel.field_config
    assert config is not None
    columns = (one for override in config.overrides for one in override.properties)
    return bool(config.defaults.links) or any(one.id_val == "links" for one in columns)


def link(title: str, uid: str, *labels: str, tabular: bool = False) -> dashboard.DashboardLink:
    """A link to another dashboard that carries the time range and what is chosen.

    Args:
        labels: of the series that was clicked, which replace what is chosen.
        tabular: the panel is a table, whose columns are called as the labels, capitalised.
    """

    def value(label: str) -> str:
        return f"__data.fields.{label.capitalize()}" if tabular else f"__field.labels.{label}"

    carried = [
        f"var-{name}=${{{value(name)}}}" if name in labels else f"${{{name}:queryparam}}"
        for name in ("datasource", "model", "tenant")
    ]
    url = f"/d/{uid}?" + "&".join(["${__url_time_range}", *carried])
    return dashboard.DashboardLink(title).url(url)


def event(name: str, text: str, expression: str, colour: str) -> dashboard.AnnotationQuery:
    """Marks the moments at which `expression` gives something; `text` names labels."""
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(colour)
        .expr(expression)
        .step("5s")
        .title_format(name)
        .text_format(text)
    )


def _change(name: str, text: str, metric: str, colour: str) -> dashboard.AnnotationQuery:
    happened = grown(metric, MODEL, by="model, variant", over=STEP)
    return event(name, f"{{{{model}}}} {{{{variant}}}} {text}", f"{happened} > 0", colour)


def _variables(tenants: bool) -> list[Builder[model.VariableModel]]:
    source = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return [
        source,
        _choice("model", "Model", "label_values(gearshift_variant_ready, model)", shown=True),
        _choice(
            "tenant", "Tenant", "label_values(gearshift_requests_total, tenant)", shown=tenants
        ),
    ]


def _choice(name: str, label: str, values: str, *, shown: bool) -> dashboard.QueryVariable:
    every = model.VariableOption(selected=True, text="All", value="$__all")
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": values, "refId": name})
        .definition(values)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(every)
        .hide(model.VariableHide.DONT_HIDE if shown else model.VariableHide.HIDE_VARIABLE)
    )


def _others() -> dashboard.DashboardLink:
    """The other dashboards, at the top of each."""
    return (
        dashboard.DashboardLink("Gearshift")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
    )


EVENTS = (
    _change("Loaded", "was loaded", "gearshift_variant_loads_total", BLUE),
    _change("Swapped", "was replaced by another build", "gearshift_variant_swaps_total", ORANGE),
    _change("Evicted", "was freed for others", "gearshift_variant_evictions_total", GREY),
    event(
        "Breaker",
        "{{model}} {{variant}} is left alone: it failed",
        f"max by (model, variant) (gearshift_breaker{{{MODEL}}}) == 2",
        RED,
    ),
)
"""What the dashboards mark over time: builds that came and went, and breakers that are open."""
