"""A provider of text messages for tests: takes POSTs on a loopback port and appends each to a file, a line of JSON
a request. By the number's last digits it refuses for good (422), refuses our key (401), is busy the first time
(503), breaks off the first time (444) or answers too late the first time (000). Ends when its standard input does,
so never outlives its test."""

import http.server
import json
import pathlib
import sys
import threading
import time

seen = {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with lock, log.open("a") as lines:
            lines.write(json.dumps({"path": self.path, "headers": headers, "body": body}) + "\n")
        number = body["to"]
        seen[number] = seen.get(number, 0) + 1
        first = seen[number] == 1
        if number.endswith("444") and first:
            self.close_connection = True
            return
        if number.endswith("000") and first:
            time.sleep(7)
        status = 202
        if number.endswith("422"):
            status = 422
        if number.endswith("401"):
            status = 401
        if number.endswith("503") and first:
            status = 503
        # What providers answer tells the number; it must get into no log of ours.
        answer = json.dumps({"to": number, "status": status}).encode()
        try:
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
        except ConnectionError:
            # Nobody waits any more, or for the status alone.
            self.close_connection = True

    def log_message(self, *_):
        pass


lock = threading.Lock()
log = pathlib.Path(sys.argv[2])
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
