#!/usr/bin/env python3
"""Holds docs/reference/openapi.yaml against the running server: every operation of the file answers
with a status and a body that the file states, and every schema is seen at least once. (That each
registered route is in the file is checked by conductor_rest_test.) Usage: TOOLS_FOLDER"""
import http.client
import json
import pathlib
import re
import socket
import sys

import yaml

from cluster import Cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPEC = yaml.safe_load((ROOT / "docs/reference/openapi.yaml").read_text(encoding="utf-8"))
covered = set()
seen_schemas = set()

TYPES = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
}


def resolve(node):
    while "$ref" in node:
        name = node["$ref"]
        seen_schemas.add(name)
        node = SPEC
        for part in name.removeprefix("#/").split("/"):
            node = node[part]
    return node


def check(value, schema, where):
    schema = resolve(schema)
    known = {"type", "enum", "properties", "required", "additionalProperties", "items", "minimum",
             "maximum", "pattern", "minLength", "maxLength", "format", "description",
             "minProperties", "maxProperties"}
    assert set(schema) <= known, f"{where}: the test does not know {set(schema) - known}"
    if "type" in schema:
        assert TYPES[schema["type"]](value), f"{where}: {value!r} is not {schema['type']}"
    if "enum" in schema:
        assert value in schema["enum"], f"{where}: {value!r} is not in {schema['enum']}"
    if "minimum" in schema:
        assert value >= schema["minimum"], f"{where}: {value}"
    if "maximum" in schema:
        assert value <= schema["maximum"], f"{where}: {value}"
    if "pattern" in schema:
        assert re.search(schema["pattern"], value), f"{where}: {value!r}"
    if "minLength" in schema:
        assert len(value) >= schema["minLength"], f"{where}: too short"
    if schema.get("format") == "uuid":
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value), f"{where}: {value}"
    for name in schema.get("required", []):
        assert name in value, f"{where}: '{name}' is missing"
    for name, inner in schema.get("properties", {}).items():
        if name in value:
            check(value[name], inner, f"{where}.{name}")
    if schema.get("additionalProperties") is False:
        extra = set(value) - set(schema["properties"])
        assert not extra, f"{where}: {extra} is not in the file"
    for index, item in enumerate(value if "items" in schema else []):
        check(item, schema["items"], f"{where}[{index}]")


class Api:
    def __init__(self, address):
        self.address = address

    def send(self, method, path, body=None):
        host, port = self.address.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response, content

    def call(self, method, template, expect, body=None, query="", **parameters):
        """Calls an operation of the file, expects a status, checks everything the file states."""
        path = template.format(**parameters) + query
        response, content = self.send(method.upper(), path, body)
        where = f"{method} {path}"
        assert response.status == expect, f"{where}: {response.status} {content!r}, not {expect}"
        responses = SPEC["paths"][template][method]["responses"]
        stated = responses.get(str(expect))
        if stated is None:
            assert expect >= 400, f"{where}: status {expect} is not in the file"
            stated = resolve(responses["default"])
        covered.add((method, template, str(expect) if str(expect) in responses else "default"))
        if "content" not in stated:
            assert content == b"", f"{where}: a body that is not in the file"
            return None
        (media, form), = stated["content"].items()
        assert response.getheader("Content-Type").split(";")[0] == media, where
        value = content.decode()
        if media.endswith("json"):
            value = json.loads(value)
        check(value, form["schema"], where)
        return value


def volumes(api):
    base = "/v1/volumes"
    one = "/v1/volumes/{name}"
    api.call("post", base, 201, {"name": "vol ü 1", "size_bytes": 1 << 30})
    made = api.call("post", base, 201, {"name": "big", "size_bytes": 1 << 45, "replicas": 1})
    assert made["size_bytes"] == 1 << 45 and made["shard_count"] == 512
    refusals = [
        ({"name": "big", "size_bytes": 4096}, 409), ({"name": "x", "size_bytes": 0}, 400),
        ({"name": "x", "size_bytes": 4097}, 400), ({"name": "x", "size_bytes": -4096}, 400),
        ({"name": "x", "size_bytes": (1 << 50) + 4096}, 400), ({"name": "x"}, 400),
        ({"name": "x", "size_bytes": (1 << 64)}, 400), ({"name": "x", "size_bytes": 1.5}, 400),
        ({"name": "x", "size_bytes": "4096"}, 400), ({"name": "", "size_bytes": 4096}, 400),
        ({"name": "n" * 97, "size_bytes": 4096}, 400), ({"name": "a/b", "size_bytes": 4096}, 400),
        ({"name": "a:b", "size_bytes": 4096}, 400), ({"name": "a@b", "size_bytes": 4096}, 400),
        ({"name": "a\nb", "size_bytes": 4096}, 400), ({"name": 7, "size_bytes": 4096}, 400),
        ({"name": "x", "size_bytes": 4096, "replicas": 3}, 400),
        ({"name": "x", "size_bytes": 4096, "replicas": 0}, 400),
        ({"name": "x", "size_bytes": 4096, "shard_bytes": 0}, 400),
        ({"name": "x", "size_bytes": 4096, "sise": 1}, 400), ([1], 400), ("{", 400), ("", 400),
    ]
    for body, status in refusals:
        problem = api.call("post", base, status, body)
        assert len(problem["message"]) > 10, problem
    assert [v["name"] for v in api.call("get", base, 200)["volumes"]] == ["big", "vol ü 1"]
    assert api.call("get", base, 200, query="?limit=1")["more"] is True
    assert api.call("get", base, 200, query="?after=big")["volumes"][0]["name"] == "vol ü 1"
    api.call("get", base, 400, query="?limit=x")
    quoted = "vol%20%C3%BC%201"
    assert api.call("get", one, 200, name=quoted)["health"] == "ok"
    api.call("get", one, 404, name="none")
    api.call("patch", one, 200, {"name": "renamed"}, name=quoted)
    api.call("patch", one, 409, {"name": "big"}, name="renamed")
    api.call("patch", one, 404, {"name": "x"}, name=quoted)
    api.call("patch", one, 400, {"size_bytes": 4096}, name="renamed")
    api.call("patch", one, 400, {"size_bytes": 1 << 31, "name": "x"}, name="renamed")
    assert api.call("patch", one, 200, {"size_bytes": 1 << 31}, name="renamed")["size_bytes"] == 1 << 31
    accept = "/v1/volumes/{name}/accept-loss"
    assert "--force" in api.call("post", accept, 409, name="renamed")["message"]
    assert api.call("post", accept, 200, name="renamed", query="?force=true") == {"accepted_shards": 0}
    api.call("post", accept, 404, name="none", query="?force=true")
    api.call("post", accept, 400, name="renamed", query="?force=1")
    api.call("delete", one, 400, name="renamed", query="?force=1")
    assert api.call("delete", one, 200, name="renamed")["space_freed"] is True
    api.call("delete", one, 404, name="renamed")
    api.call("delete", one, 200, name="big", query="?force=true")
    assert api.call("get", base, 200) == {"volumes": [], "more": False}


def stores_and_trays(api, folder):
    stores = api.call("get", "/v1/stores", 200)["stores"]
    assert len(stores) == 1 and len(stores[0]["trays"]) == 1
    api.call("get", "/v1/stores/{id}", 200, id=stores[0]["id"])
    api.call("get", "/v1/stores/{id}", 404, id=4000000000)
    api.call("get", "/v1/stores/{id}", 400, id="x")
    added = api.call("post", "/v1/trays", 201,
                     {"path": f"{folder}/more.img", "create_bytes": 1 << 30, "write_cache": "none"})
    assert added["volatile_cache"] is False
    api.call("post", "/v1/trays", 400, {"path": f"{folder}/x.img", "create_bytes": 1 << 30, "write_cache": "fast"})
    zero = api.call("post", "/v1/trays", 400, {"path": f"{folder}/x.img", "create_bytes": 0})
    assert "create_bytes" in zero["message"], zero
    accept = "/v1/trays/{uuid}/accept-loss"
    api.call("post", accept, 409, uuid=added["uuid"])
    assert api.call("post", accept, 200, uuid=added["uuid"], query="?force=true") == {"accepted_shards": 0}
    api.call("post", accept, 404, uuid=stores[0]["uuid"], query="?force=true")
    api.call("post", "/v1/trays", 400, {"path": "relative"})
    response, _ = api.send("POST", "/v1/trays", {"path": f"{folder}/absent/x.img"})
    assert response.status >= 400
    assert len(api.call("get", "/v1/trays", 200)["trays"]) == 2
    api.call("delete", "/v1/trays/{uuid}", 204, uuid=added["uuid"])
    api.call("delete", "/v1/trays/{uuid}", 404, uuid=added["uuid"])
    assert len(api.call("get", "/v1/trays", 200)["trays"]) == 1


def cluster(api):
    assert api.call("get", "/v1/status", 200)["stores_online"] == 1
    api.call("get", "/v1/top", 200)
    api.call("get", "/v1/version", 200)
    text = api.call("get", "/metrics", 200)
    assert "# TYPE pureflash_volumes gauge" in text and "pureflash_volumes_created_total" in text
    assert api.call("get", "/healthz", 200) == "ok\n"


def what_is_not_there(api):
    for method, path, status in [("GET", "/", 404), ("GET", "/v1", 404), ("PUT", "/v1/status", 405),
                                 ("POST", "/v1/volumes/x", 405), ("GET", "/v1/volumes/a/b", 404),
                                 ("GET", "/v1/" + "x" * 3000, 414),
                                 ("GET", "/v1/volumes/%0a", 404)]:
        response, content = api.send(method, path)
        assert response.status == status, f"{method} {path}: {response.status}"
        if content:
            check(json.loads(content), SPEC["components"]["schemas"]["Problem"], path)
    response, _ = api.send("POST", "/v1/volumes", b" " * (2 << 20))
    assert response.status == 413, response.status


def no_length_is_no_body(api):
    """As `curl -X POST` sends it; http.client would add `Content-Length: 0`."""
    host, port = api.address.split(":")
    for method, path, status in [("POST", "/v1/volumes/none/accept-loss?force=true", 404),
                                 ("DELETE", "/v1/volumes/none", 404), ("PUT", "/v1/volumes", 405),
                                 ("PATCH", "/v1/volumes/none", 400), ("POST", "/v1/volumes", 400)]:
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {api.address}\r\n\r\n".encode())
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            problem = json.loads(response.read())
        assert response.status == status, f"{method} {path}: {response.status} {problem}"
        check(problem, SPEC["components"]["schemas"]["Problem"], path)
        assert "HTTP/1.1" not in problem["message"], problem


def parameters_are_those_of_the_file(api):
    """What is not in the file is refused by name, and nothing is done."""
    api.call("post", "/v1/volumes", 201, {"name": "kept", "size_bytes": 4096})
    for path, item in SPEC["paths"].items():
        for method in set(item) - {"parameters"}:
            problem = api.call(method, path, 400, query="?forse=true", name="kept", id=1, uuid="x")
            assert "'forse'" in problem["message"], problem
    twice = api.call("delete", "/v1/volumes/{name}", 400, query="?force=true&force=false", name="kept")
    assert "'force'" in twice["message"], twice
    body = '{"name": "kept", "size_bytes": 4096, "size_bytes": 8192}'
    assert "'size_bytes'" in api.call("post", "/v1/volumes", 400, body)["message"]
    api.call("delete", "/v1/volumes/{name}", 200, name="kept")


def everything_was_called():
    missing = []
    for path, item in SPEC["paths"].items():
        for method in set(item) - {"parameters"}:
            done = {status for m, p, status in covered if (m, p) == (method, path)}
            if not any(status.startswith("2") for status in done):
                missing.append(f"{method} {path}")
    assert not missing, f"never answered with success: {missing}"


def main():
    with Cluster(sys.argv[1]) as node:
        api = Api(node.conductor)
        volumes(api)
        stores_and_trays(api, node.data)
        cluster(api)
        what_is_not_there(api)
        no_length_is_no_body(api)
        parameters_are_those_of_the_file(api)
        everything_was_called()
        node.stop()
    print(f"{len(covered)} answers checked")


if __name__ == "__main__":
    main()
