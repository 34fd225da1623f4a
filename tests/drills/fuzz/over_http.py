"""At the door: cases of a real server's HTTP port."""

from __future__ import annotations

import gzip
from random import Random

from tests.drills import mutations
from tests.drills.fuzz.cases import Case
from tests.drills.fuzz.client import Client, judged, post
from tests.drills.mutations import DATATYPES

_PATH = "/v2/models/{model}/infer"


def rest(client: Client) -> Case:
    """Requests that are HTTP, with tampered bodies and headers."""

    def case(dice: Random) -> str:
        datatype = dice.choice(DATATYPES)
        document, tail = mutations.request(dice, datatype)
        if dice.random() < 0.7:
            document = mutations.altered(dice, document)
        text = mutations.text_of(document)
        length = mutations.json_length(dice, len(text) if tail is not None else None)
        body = text + (tail or b"")
        headers = [] if length is None else [("Inference-Header-Content-Length",
                                              length.decode("latin-1"))]  # fmt: skip
        if dice.random() < 0.3:
            headers += [
                (name, "".join(c for c in value if c not in "\r\n\0"))
                for name, value in mutations.stated(dice)
            ]
        if dice.random() < 0.1:
            body = mutations.scrambled(dice, body)
        if dice.random() < 0.1:
            coding = dice.choice(("gzip", "zstd", "deflate", "br"))
            headers.append(("Content-Encoding", coding))
            body = mutations.scrambled(dice, gzip.compress(body, 1))
        if dice.random() < 0.05:
            headers.append(("Accept-Encoding", dice.choice(("gzip", "zstd;q=2", "*;q=0", ",;"))))
        model = datatype.lower() if dice.random() < 0.95 else dice.choice(
            ("nobody", "%2e%2e", "a%00b", "%ff", "fp32%2f..%2f..", "x" * 3000))  # fmt: skip
        path = _PATH.format(model=model)
        if dice.random() < 0.1:
            version = dice.choice(("fp32", "reference", "nobody", "%2e%2e", "%ff"))
            path = path.replace("/infer", f"/versions/{version}/infer")
        message = post(path, headers, body)
        return judged(*client.ask(message, whole=_is_whole(message)), message)

    return case


def _is_whole(message: bytes) -> bool:
    """A header that chance wrote may make it something else than it was meant to be."""
    return all(byte >= 0x20 or byte in b"\r\n\t" for byte in message.partition(b"\r\n\r\n")[0])


def paths(client: Client) -> Case:
    """Every other path, with tampered names, bodies and methods."""
    known = (
        "/v2", "/v2/health/live", "/v2/models/fp32", "/v2/models/fp32/versions/fp32",
        "/v2/models/fp32/ready", "/v2/models/fp32/config", "/v2/models/fp32/stats",
        "/v2/models/stats", "/v2/models/fp32/decide", "/v2/repository/index", "/metrics", "/",
        "/v2/repository/models/fp32/load", "/openapi.json", "/healthz", "/v2/models/fp32/infer",
    )  # fmt: skip

    def case(dice: Random) -> str:
        path = dice.choice(known)
        if dice.random() < 0.5:
            path = "".join(
                c if c.isalnum() or c in "/.-_~%?&=" else f"%{ord(c):02x}"
                for c in mutations.scrambled(dice, path.encode()).decode("latin-1")
            )
        method = dice.choice(("GET", "GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"))
        document, _ = mutations.request(dice, "FP32")
        body = mutations.text_of(mutations.altered(dice, document)) if method == "POST" else b""
        message = post(path or "/", [], body).replace(b"POST", method.encode(), 1)
        status, answer = client.ask(message, whole=method != "HEAD")
        if method == "HEAD":
            return str(status) if status < 500 else judged(status, answer, message)
        return judged(status, answer, message)

    return case


def http(client: Client) -> Case:
    """Requests whose very bytes were tampered with: whatever a socket may bring."""

    def case(dice: Random) -> str:
        document, tail = mutations.request(dice, "FP32")
        text = mutations.text_of(document)
        headers = [("Gearshift-Min-Accuracy", "0.5"), ("Content-Type", "application/json")]
        if tail is not None:
            headers.append(("Inference-Header-Content-Length", str(len(text))))
        if dice.random() < 0.2:
            headers.append(("Transfer-Encoding", "chunked"))
        message = post(_PATH.format(model="fp32"), headers, text + (tail or b""))
        head, _, body = message.partition(b"\r\n\r\n")
        if dice.random() < 0.8:
            head = mutations.scrambled(dice, head)
        else:
            body = mutations.scrambled(dice, body)
        message = head + b"\r\n\r\n" + body
        return judged(*client.ask(message, whole=False), message)

    return case
