"""Stands between the gateway's uplink and the sandbox and checks both directions against channels.openapi.yaml.

Loopback only. It passes on what breaks the contract as well: the finding counts, not the consequence.
"""

import http.client
import json
import re
import threading
import urllib.parse
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jsonschema
import yaml

FORMATS = jsonschema.FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)
def _is_time(value):
    if isinstance(value, str):
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value):
            raise ValueError("not RFC 3339")
        datetime.fromisoformat(value)
    return True


@FORMATS.checks("uri", raises=ValueError)
def _is_uri(value):
    if isinstance(value, str):
        parts = urllib.parse.urlsplit(value)
        if not parts.scheme or not parts.netloc or not re.fullmatch(r"[!-~]+", value):
            raise ValueError("not an absolute URI")
    return True


class Contract:
    """An OpenAPI 3.1 document: its schemas are JSON Schema as they stand."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.document = yaml.safe_load(file)
        self.routes = []
        for template, item in self.document["paths"].items():
            pattern = re.compile("^" + re.sub(r"\{[^}]+\}", "([^/]+)", template) + "$")
            # A fixed path wins over one with a parameter.
            self.routes.append(("{" in template, pattern, template, item))
        self.routes.sort(key=lambda route: route[0])

    def resolve(self, node):
        while "$ref" in node:
            target = self.document
            for key in node["$ref"].removeprefix("#/").split("/"):
                target = target[key]
            node = target
        return node

    def find(self, method, path):
        for _, pattern, _, item in self.routes:
            match = pattern.match(path)
            if match and method.lower() in item:
                return item, item[method.lower()], match.groups()
        return None

    def problems(self, schema, value):
        whole = {**schema, "components": self.document["components"]}
        checker = jsonschema.Draft202012Validator(whole, format_checker=FORMATS)
        return [f"{error.json_path}: {error.message[:200]}" for error in checker.iter_errors(value)]


class Proxy:
    def __init__(self, document, target, prefix="/api/v1"):
        self.contract = Contract(document)
        self.target = target
        self.prefix = prefix
        self.seen = []
        self.violations = []
        self.lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self):
                proxy.pass_on(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = pass_on

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def report(self, where, problems):
        with self.lock:
            self.violations.extend(f"{where}: {problem}" for problem in problems)

    def pass_on(self, handler):
        length = handler.headers.get("content-length")
        body = handler.rfile.read(int(length)) if length else b""
        where = f"{handler.command} {handler.path}"
        problems, operation, sent = self.check_request(handler, body)
        headers = {
            name: value
            for name, value in handler.headers.items()
            if name.lower() not in ("connection", "content-length", "transfer-encoding")
        }
        upstream = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        upstream.request(handler.command, handler.path, body or None, headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if operation:
            problems += self.check_answer(operation, answer, content)
        with self.lock:
            name = operation["operationId"] if operation else where
            self.seen.append({"operation": name, "status": answer.status, "sent": sent})
        self.report(where, problems)
        handler.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding", "date", "server"):
                handler.send_header(name, value)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def check_request(self, handler, body):
        parts = urllib.parse.urlsplit(handler.path)
        problems = []
        if not parts.path.startswith(self.prefix + "/"):
            return [f"the path does not begin with {self.prefix}"], None, None
        found = self.contract.find(handler.command, parts.path.removeprefix(self.prefix))
        if not found:
            return ["no such operation"], None, None
        item, operation, values = found
        if parts.query:
            problems.append(f"query {parts.query!r} is not documented")
        if not re.fullmatch(r"Bearer \S+", handler.headers.get("authorization", "")):
            problems.append("no bearer token")
        if "json" not in handler.headers.get("accept", "application/json") and "*/*" not in handler.headers["accept"]:
            problems.append("does not accept JSON")
        for parameter, value in zip(item.get("parameters", []), values):
            schema = self.contract.resolve(parameter)["schema"]
            problems += self.contract.problems(schema, urllib.parse.unquote(value))
        wanted = operation.get("requestBody")
        if not wanted:
            if body:
                problems.append("a body where none is documented")
            return problems, operation, None
        kind = handler.headers.get("content-type", "")
        if kind.split(";")[0].strip().lower() != "application/json":
            problems.append(f"content type {kind!r}")
        try:
            sent = json.loads(body.decode())
        except ValueError as error:
            return [*problems, f"body: {error}"], operation, None
        problems += self.contract.problems(wanted["content"]["application/json"]["schema"], sent)
        return problems, operation, sent

    def check_answer(self, operation, answer, content):
        response = operation["responses"].get(str(answer.status))
        if response is None:
            return [f"the answer's status {answer.status} is not documented"]
        schema = self.contract.resolve(response)["content"]["application/json"]["schema"]
        try:
            return [f"answer {p}" for p in self.contract.problems(schema, json.loads(content))]
        except ValueError as error:
            return [f"answer: {error}"]
