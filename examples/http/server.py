"""A job without any SDK: a plain HTTP server. Anything that answers a POST will do."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body go out together

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404, {})

    def do_POST(self):
        job_input = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = job_input.get("text")
        if not isinstance(text, str):
            self.answer(422, {"detail": "text should be a text"})  # the job fails
            return
        self.answer(200, {"upper": text.upper()})


# The model would be loaded here, once for all jobs.
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
