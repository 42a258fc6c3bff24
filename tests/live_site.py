"""The live page for tests: put together in a folder, served on loopback, and other models to draw with."""

import functools
import json
import runpy
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sdlearn import parts

ROOT = Path(__file__).parent.parent
LIVE = ROOT / "docs" / "live"
NODE = shutil.which("node")
LIBRARY = LIVE / "node_modules" / "onnxruntime-web"
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".json": "application/json"}
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


def ask(question, **details):
    """What the page's modules answer in node."""
    done = subprocess.run(
        [NODE, ROOT / "tests" / "live" / "compute.mjs"],
        input=json.dumps({"question": question, **details}),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def build(out, model=parts.MINI):
    """The page, put together as `make site` does it."""
    runpy.run_path(str(LIVE / "build.py"))["build"](out, model)


class Handler(SimpleHTTPRequestHandler):
    """Files, and the failures of a network: `cut` is a path and how many bytes of it come before the line is dead."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def log_message(self, *_):
        pass

    def end_headers(self):
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def copyfile(self, source, outputfile):
        path, size = self.server.cut or ("", 0)
        if not path or not self.path.endswith(path):
            return super().copyfile(source, outputfile)
        outputfile.write(source.read(size))
        outputfile.flush()
        self.connection.close()


@contextmanager
def served(folder, headers=()):
    """A server on loopback; its `address` is the page's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    server.daemon_threads, server.headers, server.cut = True, dict(headers), None
    server.address = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def other_model(folder, seed):
    """A model of the shipped one's shape with other weights: those of the shipped one, a little shaken."""
    shutil.copytree(parts.MINI, folder)
    generator = torch.Generator().manual_seed(seed)
    for part, name in parts.WEIGHTS.items():
        weights = load_file(folder / part / name)
        shaken = {
            key: x * (1 + 0.05 * torch.randn(x.shape, generator=generator)).to(x.dtype) for key, x in weights.items()
        }
        save_file(shaken, folder / part / name, {"format": "pt"})
    return folder
