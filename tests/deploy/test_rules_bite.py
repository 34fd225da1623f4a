"""The tests of promtool can fail: take a condition out of an alert, or put it wrong, and one turns
red."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.test_rules import ALERTS, FILES, TESTS, rules
from tests.needs import program

_AND = re.compile(r"\nand(?: on \([^)]*\))?\n")
_RECORDED = re.compile(r"\bgearshift:[a-z0-9_]+:[a-z0-9_]+")
_GROUPS = [each for path in FILES for each in yaml.safe_load(path.read_text("utf-8"))["groups"]]
_CASES = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in TESTS}
_RULES = {rule.get("alert") or rule["record"]: rule for rule in rules()}
_WINDOWS = ("5m", "30m", "1h", "6h", "3d")

CHANGES = (
    *((f"gearshift:attainment:ratio_rate{w}", '!="relaxed"', '=~"kept|missed"') for w in _WINDOWS),
    *((f"gearshift:errors:ratio_rate{w}", "|not-ready", "") for w in _WINDOWS),
    ("gearshift:attainment:ratio_rate1h", '!="relaxed"', '=~"kept|missed|shed"'),
    ("gearshift:attainment:ratio_rate1h", '!="relaxed"', '!=""'),
    ("gearshift:errors:ratio_rate1h", "|internal", ""),
    ("gearshift:errors:ratio_rate1h", "engine-failed|", ""),
    ("gearshift:errors:ratio_rate1h", "|invalid-request", ""),
    *((f"Gearshift{what}Fast", "> 14.4 ", "> 12 ") for what in ("DeadlinesMissed", "Errors")),
    *((f"Gearshift{what}Steadily", "> 6 ", "> 3 ") for what in ("DeadlinesMissed", "Errors")),
    *((f"Gearshift{what}Slowly", "> 1 ", "> 0.5 ") for what in ("DeadlinesMissed", "Errors")),
    ("GearshiftQueueOld", "> 5", "> 1"),
    ("GearshiftQueueOld", "max by", "sum by"),
    ("GearshiftQueueOld", "max by", "min by"),
    ("GearshiftStoreUnreadable", "min by", "max by"),
    ("GearshiftLedgerDown", "min by", "max by"),
    ("GearshiftAccuracyBelowFloor", "0.98", "0.999"),
    ("GearshiftAccuracyBelowFloor", "0.98", "0.9"),
)


def put_wrong() -> Iterator[tuple[str, str, str]]:
    """What is changed, the rule's name, and its expression then."""
    for rule in ALERTS:
        conditions = _AND.split(rule["expr"])
        for number in range(len(conditions) if len(conditions) > 1 else 0):
            left = "\nand\n".join(conditions[:number] + conditions[number + 1 :])
            yield f"{rule['alert']} without condition {number}", rule["alert"], left
    for name, old, new in CHANGES:
        expr = _RULES[name]["expr"]
        assert old in expr, (name, old)
        yield f"{name}: {old} to {new!r}", name, expr.replace(old, new)


def write(folder: Path, name: str, expr: str) -> Iterator[str]:
    """The rule with that expression, what it needs, and what tests say of it: names of tests."""
    changed = _RULES | {name: {**_RULES[name], "expr": expr}}
    needed = {name, *_RECORDED.findall(_RULES[name]["expr"])}
    groups = []
    for group in _GROUPS:
        names = [rule.get("alert") or rule["record"] for rule in group["rules"]]
        groups.append({**group, "rules": [changed[each] for each in names if each in needed]})
    folder.mkdir()
    (folder / "rules.yml").write_text(json.dumps({"groups": groups}), "utf-8")
    for file, whole in _CASES.items():
        tests = [small for test in whole["tests"] if (small := of_rule(test, name))]
        if tests:
            small_file = {**whole, "rule_files": ["rules.yml"], "tests": tests}
            (folder / file).write_text(json.dumps(small_file), "utf-8")
            yield f"{folder.name}/{file}"


def of_rule(test: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What of a test is about that rule alone."""
    alerts = [each for each in test.get("alert_rule_test", ()) if each["alertname"] == name]
    values = [each for each in test.get("promql_expr_test", ()) if name in each["expr"]]
    return (
        {**test, "alert_rule_test": alerts, "promql_expr_test": values} if alerts + values else None
    )


def test_a_rule_that_is_put_wrong_turns_a_test_red(tmp_path: Path) -> None:
    whats: list[str] = []
    files: list[str] = []
    for number, (what, name, expr) in enumerate(put_wrong()):
        whats.append(what)
        files += write(tmp_path / str(number), name, expr)
    command = [program("promtool", "prometheus"), "test", "rules", *files]
    # Both streams in one, in which each failure stands below its file's name.
    ran = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )
    said = re.split(r"^Unit Testing:  ", ran.stdout, flags=re.MULTILINE)[1:]
    assert len(said) == len(files), ran.stdout
    red = {
        int(file.partition("/")[0])
        for file, text in zip(files, said, strict=True)
        if re.search(r"FAILED.*exp:.*got:", text, re.DOTALL)
    }
    assert [what for number, what in enumerate(whats) if number not in red] == []
