"""A Hub on the loopback interface: it speaks the protocol of the real client, keeps what is pushed, and can misbehave."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
import safetensors.torch
import torch
import yaml

from rdc_bench.core.files import file_sha256
from rdc_bench.diffusion import EDMPrecond
from rdc_bench.networks import SmallResNet

NETWORK = {"in_channels": 1, "num_classes": 10, "widths": [8, 8], "blocks": [1, 1]}
DENOISER = {
    "img_resolution": 28,
    "img_channels": 1,
    "label_dim": 10,
    "model_type": "MultiHeadUNet",
    "fine": 8,
    "coarse": 8,
    "head": 8,
    "head_blocks": 1,
}


class Hub:
    """Repositories with commits, branches and files.

    ``requests``: (method, path) of everything asked, but for the client's greeting. ``status``, ``code``: answer everything
    with this status and error code. ``cut``: bytes after which the connection breaks, once, by file name. ``garbled``: files
    whose content arrives with other bytes. ``hidden``: files that are listed and not served. ``closed``: repositories that only
    the token ``secret`` opens.
    """

    def __init__(self, url):
        self.url = url
        self.commits = {}
        self.refs = {}
        self.private = {}
        self.requests = []
        self.cut = {}
        self.garbled = set()
        self.hidden = set()
        self.closed = set()
        self.status = None
        self.code = ""

    def commit(self, repo, files, branch="main"):
        """Add files to a branch; returns the new commit. None as content takes a file away."""
        earlier = self.refs.get(repo, {}).get(branch)
        held = dict(self.commits[repo][earlier]) if earlier else {}
        held = {path: content for path, content in {**held, **files}.items() if content is not None}
        facts = json.dumps([earlier, sorted((p, hashlib.sha1(c).hexdigest()) for p, c in held.items())])
        commit = hashlib.sha1(facts.encode()).hexdigest()
        self.commits.setdefault(repo, {})[commit] = held
        self.refs.setdefault(repo, {})[branch] = commit
        return commit

    def resolve(self, repo, revision):
        return self.refs[repo].get(revision) or (revision if revision in self.commits[repo] else None)

    def asked(self, method=None, ending=""):
        return [path for m, path in self.requests if method in (None, m) and path.endswith(ending)]


def oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    @property
    def hub(self):
        return self.server.hub

    @property
    def authorised(self):
        return self.headers.get("Authorization") == "Bearer secret"

    def do_HEAD(self):
        self.route("HEAD")

    def do_GET(self):
        self.route("GET")

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.route("POST")

    def route(self, method):
        path = unquote(urlsplit(self.path).path)
        if path == "/api/agent-harnesses":
            return self.reply(404, {})
        self.hub.requests.append((method, path))
        if self.hub.status:
            return self.reply(self.hub.status, {"error": "out of order"}, X_Error_Code=self.hub.code)
        for pattern, answer in ROUTES:
            if found := re.fullmatch(pattern, path):
                return answer(self, *found.groups())
        return self.reply(404, {"error": f"nothing at {path}"})

    def reply(self, status, document, **headers):
        content = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(content), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, code, status=404):
        self.reply(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def commit_of(self, repo, revision):
        """The commit, or None after having answered that there is none."""
        if repo not in self.hub.commits or (repo in self.hub.closed and not self.authorised):
            return self.refuse("RepoNotFound", 401)
        return self.hub.resolve(repo, revision or "main") or self.refuse("RevisionNotFound")

    def info(self, repo, revision=None):
        if commit := self.commit_of(repo, revision):
            siblings = [{"rfilename": path} for path in self.hub.commits[repo][commit]]
            self.reply(200, {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "tags": [], "private": False})

    def tree(self, repo, revision):
        if commit := self.commit_of(repo, revision):
            rows = []
            for path, content in self.hub.commits[repo][commit].items():
                row = {"type": "file", "path": path, "size": len(content), "oid": oid(content)}
                if path.endswith(".safetensors"):
                    row |= {"oid": oid(b"pointer to " + content)}
                    row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
                rows.append(row)
            self.reply(200, rows)

    def file(self, repo, revision, path):
        commit = self.commit_of(repo, revision)
        if not commit:
            return
        content = self.hub.commits[repo][commit].get(path)
        if content is None or path in self.hub.hidden:
            self.reply(404, {"error": "no file"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        large = path.endswith(".safetensors")
        etag = hashlib.sha256(content).hexdigest() if large else oid(content)
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        self.send_response(206 if start else 200)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": len(content)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        for name, value in {**headers, "Content-Length": len(content) - start}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        if path in self.hub.garbled:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if path in self.hub.cut:
            self.wfile.write(content[start : start + self.hub.cut.pop(path)])
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def create(self):
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.hub.commits:
            self.reply(409, {"error": "it exists", "url": f"{self.hub.url}/{repo}"})
            return
        self.hub.private[repo] = asked.get("private") or asked.get("visibility") == "private"
        self.hub.commit(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.reply(200, {"url": f"{self.hub.url}/{repo}", "id": repo})

    def preupload(self, repo, revision):
        if repo not in self.hub.commits:
            self.refuse("RepoNotFound")
            return
        files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(self.body)["files"]]
        self.reply(200, {"files": files})

    def add(self, repo, revision):
        if not self.authorised:
            self.reply(403, {"error": "not yours"})
            return
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        files = {row["value"]["path"]: base64.b64decode(row["value"]["content"]) for row in lines if row["key"] == "file"}
        commit = self.hub.commit(repo, files, revision)
        self.reply(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit, "success": True})

    def validate(self):
        front = json.loads(self.body)["content"].split("---")[1]
        self.reply(
            200, {"errors": [] if isinstance(yaml.safe_load(front), dict) else [{"message": "no mapping"}], "warnings": []}
        )


REPO = r"([^/]+/[^/]+)"
ROUTES = [
    (rf"/api/models/{REPO}/revision/(.+)", Handler.info),
    (rf"/api/models/{REPO}/tree/(.+)", Handler.tree),
    (rf"/api/models/{REPO}/preupload/(.+)", Handler.preupload),
    (rf"/api/models/{REPO}/commit/(.+)", Handler.add),
    (rf"/api/models/{REPO}", Handler.info),
    (r"/api/repos/create", Handler.create),
    (r"/api/validate-yaml", Handler.validate),
    (rf"/{REPO}/resolve/([^/]+)/(.+)", Handler.file),
]


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    yield server.hub
    server.shutdown()
    server.server_close()
    thread.join()


def card(name, model, role="defense", **more):
    return {
        "schema_version": 1,
        "name": name,
        "title": f"The {name}",
        "role": role,
        "dataset": "fashion-mnist",
        "image_shape": [1, 28, 28],
        "num_classes": 10,
        "license": "MIT",
        "source": "a test",
        "model": model,
        **more,
    }


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Cards and weights of a tiny RDC and of a classifier that is its baseline: {file name: content}."""
    place = tmp_path_factory.mktemp("cards")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules = {"small": SmallResNet(**NETWORK), "denoiser": EDMPrecond(**DENOISER)}
    specs = {}
    for name, module in modules.items():
        safetensors.torch.save_file({k: v.contiguous() for k, v in module.state_dict().items()}, place / f"{name}.safetensors")
        kind = {"small": ("classifier", "SmallResNet", NETWORK), "denoiser": ("denoiser", "EDMPrecond", DENOISER)}[name]
        weights = {"file": f"{name}.safetensors", "sha256": file_sha256(place / f"{name}.safetensors")}
        specs[name] = {"kind": kind[0], "architecture": kind[1], "config": kind[2], "weights": weights}
    specs["dc"] = {"kind": "diffusion-classifier", "denoiser": "denoiser", "levels": 2}
    maximization = {"denoiser": "denoiser", "steps": 1, "step_size": 0.01}
    specs["rdc"] = {"kind": "rdc", "likelihood_maximization": maximization, "classifier": "dc"}
    roles = {"small": "baseline", "denoiser": "part"}
    for name, spec in specs.items():
        (place / f"{name}.yaml").write_text(yaml.safe_dump(card(name, spec, roles.get(name, "defense"))))
    return {path.name: path.read_bytes() for path in place.iterdir()}


def config(name):
    return json.dumps({"library_name": "rdc-bench", "schema_version": 1, "card": f"{name}.yaml"}).encode()


@pytest.fixture
def small(folder):
    """A repository's files: a classifier, and things that must never be fetched."""
    more = {"pytorch_model.bin": b"\x80\x04.", "other.safetensors": b"x", "sub/small.yaml": b"x", "run.py": b"1/0"}
    return {
        **{f: folder[f] for f in ("small.yaml", "small.safetensors")},
        "config.json": config("small"),
        "README.md": b"# A",
        **more,
    }


@pytest.fixture
def rdc(folder):
    """A repository's files: an RDC with all its parts."""
    names = ("rdc.yaml", "dc.yaml", "denoiser.yaml", "denoiser.safetensors")
    return {**{f: folder[f] for f in names}, "config.json": config("rdc")}


@pytest.fixture
def make_card():
    return card


@pytest.fixture
def make_config():
    return config
