"""`python -m tests.demo_check URL MODELS`: the README's requests, sent to a running demo as they
stand there, but for the address and the store."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.readme import block

README_ADDRESS = "127.0.0.1:8080"


def check(url: str, models: str) -> None:
    """Raises AssertionError where an answer is not what the README shows."""

    def adapted(text: str) -> str:
        address = url.removeprefix("http://")
        return text.replace(README_ADDRESS, address).replace("@models/", f"@{models}/")

    def shell(holding: str) -> str:
        command = adapted(block("sh", holding))
        finished = subprocess.run(
            ["bash", "-ec", command], capture_output=True, text=True, timeout=60
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    head, _, body = shell("Gearshift-Max-Latency-Ms: 40").replace("\r\n", "\n").partition("\n\n")
    status, *lines = head.splitlines()
    assert status.startswith("HTTP/1.1 200"), head
    headers = dict(line.lower().split(": ", 1) for line in lines)
    answer = json.loads(body)
    assert answer["model_version"] == headers["gearshift-variant"], head
    assert headers["gearshift-reason"], head
    assert float(headers["gearshift-predicted-latency-ms"]) <= 40, head
    (logits,) = answer["outputs"]
    assert logits["shape"] == [1, 10], body
    print(f"routed to {headers['gearshift-variant']}: {headers['gearshift-reason']}")

    problem = json.loads(shell("Gearshift-Min-Accuracy: 0.999"))
    assert problem["status"] == 422, problem
    assert 0 < problem["nearest"]["min_accuracy"] < 0.999, problem
    print(f"refused as it should be: {problem['detail']}")

    script = adapted(block("python", "tritonclient"))
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    variant, digit = finished.stdout.split()
    assert 0 <= int(digit) <= 9
    print(f"tritonclient was answered by {variant}")
    for path, text in (("/", "<title>Gearshift"), ("/console/state", '"digits"')):
        asked = ["curl", "-sf", url + path]
        assert text in subprocess.run(asked, capture_output=True, text=True, timeout=60).stdout
    print("1 passed, 0 failed")


if __name__ == "__main__":
    check(*sys.argv[1:])
