"""A server that does what the input says, and shows whom it heard: the HTTP side of a worker's jobs."""

import json
import os
import select
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404, b"")

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"]))
        wanted = json.loads(text)
        if "exit" in wanted:
            os._exit(wanted["exit"])
        if "gate" in wanted:
            with socket.create_connection(("127.0.0.1", wanted["gate"])) as gate:
                gate.sendall(b'{"pid": %d}\n' % os.getpid())
                select.select([self.connection], [], [])
                gate.sendall(b"closed\n" if self.connection.recv(1) == b"" else b"spoke\n")
            return
        if "body" in wanted:
            self.answer(wanted.get("status", 200), wanted["body"].encode())
            return
        headers = {name: self.headers[name] for name in ("Content-Type", "X-Job-Id")}
        seen = {"path": self.path, "text": text.decode(), "headers": headers, "env": dict(os.environ)}
        self.answer(200, json.dumps(seen).encode())


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
