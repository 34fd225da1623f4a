"""The kinds of panel that the dashboards have, and the queries in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
    xychart,
)
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as queries
from grafana_foundation_sdk.models import xychart as scatter

DATASOURCE = shapes.DataSourceRef(type_val="prometheus", uid="${datasource}")
# The attainment that the alerts watch over.
OBJECTIVE = 0.99

NO_TRAFFIC = "No traffic in this range"
GREEN, YELLOW, ORANGE, RED, BLUE, GREY = (
    "green", "yellow", "orange", "red", "blue", "text",
)  # fmt: skip

Query = prometheus.Dataquery
Panel = TypeVar(
    "Panel",
    stat.Panel,
    statetimeline.Panel,
    table.Panel,
    timeseries.Panel,
    xychart.Panel,
)


def query(expression: str, legend: str = "", *, exemplars: bool = False) -> Query:
    """A query over the time range; `legend` names labels as `{{label}}`."""
    made = Query().expr(expression).range().legend_format(legend or "__auto").datasource(DATASOURCE)
    return made.exemplar(True) if exemplars else made


def now(expression: str, legend: str = "") -> Query:
    """A query for the values at the end of the time range."""
    return (
        Query().expr(expression).instant().legend_format(legend or "__auto").datasource(DATASOURCE)
    )


def rows(expression: str) -> Query:
    """A query for a table: a row for each series, a column for each label."""
    return now(expression).format(queries.PromQueryFormat.TABLE)


def number(
    title: str,
    text: str,
    *wanted: Query,
    unit: str,
    steps: Sequence[tuple[float | None, str]] = ((None, BLUE),),
    width: int = 4,
    none: str = NO_TRAFFIC,
    decimals: int | None = None,
) -> stat.Panel:
    """One figure, large."""
    panel = (
        _dressed(stat.Panel(), title, text, wanted, unit, width, 5, none)
        .thresholds(limits(*steps))
        .color_mode(shapes.BigValueColorMode.VALUE)
        .graph_mode(shapes.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return panel if decimals is None else panel.decimals(decimals)


def lines(
    title: str,
    text: str,
    *wanted: Query,
    unit: str,
    width: int = 12,
    height: int = 8,
    none: str = NO_TRAFFIC,
    least: float | None = 0,
    most: float | None = None,
    colours: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    """Values over time; `colours` are those of series, by name."""
    panel = (
        _dressed(timeseries.Panel(), title, text, wanted, unit, width, height, none)
        .line_width(1.5)
        .fill_opacity(6)
        .show_points(shapes.VisibilityMode.NEVER)
        .span_nulls(False)
        .legend(_legend(["mean", "max", "lastNotNull"]))
        .tooltip(_tooltip())
    )
    if least is not None:
        panel = panel.min(least)
    if most is not None:
        panel = panel.max(most)
    for name, colour in (colours or {}).items():
        panel = panel.override_by_name(name, [_value("color", _fixed(colour))])
    return panel


def stacked(panel: timeseries.Panel, *, percent: bool = False) -> timeseries.Panel:
    """The panel with its series on top of each other; `percent` makes them add up to 100 %."""
    mode = shapes.StackingMode.PERCENT if percent else shapes.StackingMode.NORMAL
    return panel.stacking(common.StackingConfig().mode(mode)).fill_opacity(40)


def bars(panel: timeseries.Panel) -> timeseries.Panel:
    """The panel with a bar for each step: for what happens now and then."""
    return panel.draw_style(shapes.GraphDrawStyle.BARS).fill_opacity(60)


def objective(panel: timeseries.Panel, *steps: tuple[float | None, str]) -> timeseries.Panel:
    """The panel with dashed lines where one should stay above, or below."""
    style = common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.DASHED)
    return panel.thresholds(limits(*steps)).thresholds_style(style)


def on_the_right(panel: timeseries.Panel, name: str, unit: str) -> timeseries.Panel:
    """The panel with the series `name` on an axis of its own."""
    side = _value("custom.axisPlacement", shapes.AxisPlacement.RIGHT)
    return panel.override_by_name(name, [_value("unit", unit), side])


def dashed(panel: timeseries.Panel, names: str) -> timeseries.Panel:
    """The panel with the series that the regular expression `names` matches drawn as dashes."""
    style = shapes.LineStyle(fill="dash", dash=[8, 8])
    return panel.override_by_regexp(
        names, [_value("custom.lineStyle", style), _value("custom.fillOpacity", 0)]
    )


def states(
    title: str,
    text: str,
    *wanted: Query,
    named: Mapping[int, tuple[str, str]],
    width: int = 12,
    height: int = 8,
    none: str = "Nothing is reported",
) -> statetimeline.Panel:
    """States over time; `named` gives each value its name and colour."""
    mapping = model.ValueMap(
        options={
            str(value): model.ValueMappingResult(text=name, color=colour, index=index)
            for index, (value, (name, colour)) in enumerate(named.items())
        }
    )
    return (
        _dressed(statetimeline.Panel(), title, text, wanted, "short", width, height, none)
        .mappings([mapping])
        .merge_values(True)
        .show_value(shapes.VisibilityMode.AUTO)
        .row_height(0.8)
        .fill_opacity(70)
        .line_width(0)
        .legend(common.VizLegendOptions().show_legend(False).display_mode(_LIST).placement(_BELOW))
        .tooltip(_tooltip())
    )


def listing(
    title: str,
    text: str,
    *wanted: Query,
    columns: Mapping[str, str],
    units: Mapping[str, str] | None = None,
    links: Mapping[str, dashboard.DashboardLink] | None = None,
    sorted_by: str = "",
    width: int = 12,
    height: int = 8,
    none: str = NO_TRAFFIC,
) -> table.Panel:
    """A table that joins its queries by the labels that they share.

    Args:
        columns: what is shown, in order: a label, or `Value` or `Value #A` for the value of a
            query, and the name of its column.
        units: of columns, by name. links: of columns, by name.
    """
    values = ["Value", *(f"Value #{letter}" for letter in ascii_uppercase[: len(wanted)])]
    shown = {field: place for place, field in enumerate(columns)}
    hidden = ["Time", *(value for value in values if value not in shown)]
    organised = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": shown,
        "renameByName": dict(columns),
    }
    panel = (
        _dressed(table.Panel(), title, text, wanted, "short", width, height, none)
        .with_transformation(_transformation("merge"))
        .with_transformation(_transformation("organize", organised))
        .cell_height(shapes.TableCellHeight.SM)
    )
    for name, unit in (units or {}).items():
        panel = panel.override_by_name(name, [_value("unit", unit)])
    for name, target in (links or {}).items():
        panel = panel.override_by_name(name, [_value("links", [target.build()])])
    if sorted_by:
        panel = panel.sort_by([common.TableSortByFieldState().display_name(sorted_by).desc(True)])
    return panel


def points(
    title: str,
    text: str,
    across: Query,
    up: Query,
    *,
    names: tuple[str, str],
    units: tuple[str, str],
    one: str,
    width: int = 12,
    height: int = 8,
) -> xychart.Panel:
    """Two figures of the same things against each other.

    Args:
        names, units: of the figure across and of the one that goes up.
        one: the label that tells the things apart, in both queries.
    """
    first, second = names
    organised = {
        "excludeByName": {"Time": True},
        "renameByName": {"Value #A": first, "Value #B": second},
    }
    split = {"fields": [one], "naming": {"asLabels": True}}
    axis = xychart.MatcherConfig().id("byName").options(first)
    # Automatic: each frame, of which there is one for each thing, is a series of its own.
    series = xychart.XYSeriesConfig().x(xychart.XychartXYSeriesConfigX().matcher(axis))
    return (
        _dressed(xychart.Panel(), title, text, (across, up), "short", width, height, NO_TRAFFIC)
        .with_transformation(_transformation("merge"))
        .with_transformation(_transformation("organize", organised))
        .with_transformation(_transformation("partitionByValues", split))
        .mapping(scatter.SeriesMapping.AUTO)
        .series([series])
        .show(scatter.XYShowMode.POINTS)
        .override_by_name(first, [_value("unit", units[0]), _value("custom.axisLabel", first)])
        .override_by_name(
            second,
            [
                _value("unit", units[1]),
                _value("custom.axisLabel", second),
                _value("displayName", f"${{__field.labels.{one}}}"),
            ],
        )
        .legend(_legend(()))
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.SINGLE))
    )


def limits(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Colours from each value on; the first has none and holds below the second."""
    made = [model.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


_LIST = shapes.LegendDisplayMode.LIST
_BELOW = shapes.LegendPlacement.BOTTOM


def _dressed(
    panel: Panel,
    title: str,
    text: str,
    wanted: Sequence[Query],
    unit: str,
    width: int,
    height: int,
    none: str,
) -> Panel:
    panel.title(title).description(text).datasource(DATASOURCE)
    panel.unit(unit).span(width).height(height).no_value(none)
    for letter, each in zip(ascii_uppercase, wanted, strict=False):
        panel.with_target(each.ref_id(letter))
    return panel


def _legend(figures: Sequence[str]) -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(shapes.LegendDisplayMode.TABLE)
        .placement(_BELOW)
        .calcs(list(figures))
    )


def _tooltip() -> common.VizTooltipOptions:
    every = common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI)
    return every.sort(shapes.SortOrder.DESCENDING)


def _transformation(name: str, options: object = None) -> model.DataTransformerConfig:
    return model.DataTransformerConfig(id_val=name, options=options or {})


def _value(name: str, value: object) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val=name, value=value)


def _fixed(colour: str) -> model.FieldColor:
    return model.FieldColor(mode=model.FieldColorModeId.FIXED, fixed_color=colour)
