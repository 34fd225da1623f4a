"""A page that is wrong is found to be wrong, in each way that it can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.docs.desk import Desk, environment
from tests.docs.runner import run

WRONG = {
    "another word": "```console\n$ echo ready\nfailed\n```\n",
    "a command that fails": "```sh\nfalse\n```\n",
    "a command that does not fail": "<!-- fails: 3 -->\n```sh\ntrue\n```\n",
    "no language": "```\nx\n```\n",
    "an unknown technique": '```toml\n[variants.fp32]\n[variants.a]\nsteps = ["x"]\n```\n',
    "a bad setting": "```toml\nmax_queue = -1\n```\n",
    "an unknown setting": "```toml\nmax_quue = 1\n```\n",
    "bad JSON": "```json\n{\n```\n",
    "bad YAML": "```yaml\na: [\n```\n",
    "Python that raises": "```python\nassert False\n```\n",
    "an example that says something else": "```pycon\n>>> 1 + 1\n3\n\n```\n",
    "another output": "```python\nprint('a')\n```\n\n<!-- output -->\n```text\nb\n```\n",
    "an output of nothing": "<!-- output -->\n```text\nb\n```\n",
    "an unknown target": "```sh\nmake nothing-of-the-kind\n```\n",
    "no reason": "<!-- not run -->\n```sh\nfalse\n```\n",
    "an open fence": "```sh\ntrue\n",
}

RIGHT = """
<!-- file: said.py -->
```python
print("int8", 5)
```

```console
$ python said.py
int8 7
```

<!-- not run: it would fail -->
```sh
false
```

<!-- fails: 3 -->
```sh
exit 3
```
"""


def on(page: str, folder: Path) -> None:
    path = folder / "page.md"
    path.write_text(page)
    run(blocks(path), Desk(folder / "desk", {}, environment(folder / "home")))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_page_is_found(name: str, tmp_path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017 - whichever says it
        on(WRONG[name], tmp_path)


def test_a_right_page_is_right(tmp_path: Path) -> None:
    on(RIGHT, tmp_path)
