"""Packages over REST: names that can be stored, and a limit; what is stored, `end_to_end/test_jobs.py` shows."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from rabbitry_workers.http import packages
from rabbitry_workers.http.app import make_app


class Store:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def hold(self, uri: str, client: bytes, *, detached: bool) -> list[bytes] | None:
        assert detached  # the service may be gone before the job runs
        return [b"hash"] if uri in self.kept else None

    def put(self, uri: str, content: Any, client: bytes, *, detached: bool) -> None:
        assert detached
        self.kept[uri] = content.read()


class Client:
    id = b"c" * 12

    def __init__(self) -> None:
        self.store = self
        self.packages = Store()

    def register(self) -> None:
        pass


class Cluster:
    def __init__(self) -> None:
        self.made = Client()

    def client(self) -> Client:
        return self.made


@pytest.fixture
def web() -> TestClient:
    cluster: Any = Cluster()
    made = TestClient(make_app(cluster, [packages.router], token=None), base_url="http://127.0.0.1")
    made.kept = cluster.made.packages.kept  # type: ignore[attr-defined]
    return made


def test_what_was_put_is_there(web: TestClient) -> None:
    path = "/api/packages/gcs/_ray_pkg_1a2b.zip"
    assert web.get(path).status_code == 404
    assert web.put(path, content=b"zip").status_code == 200
    assert web.get(path).status_code == 200
    assert web.kept == {"gcs://_ray_pkg_1a2b.zip": b"zip"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["s3/a.zip", "gcs/a.exe", "gcs/.zip", "gcs/a%20b.zip", "gcs/" + "a" * 300 + ".zip"])
def test_other_names_are_refused(web: TestClient, path: str) -> None:
    assert web.get(f"/api/packages/{path}").status_code == 400
    assert web.put(f"/api/packages/{path}", content=b"zip").status_code == 400


def test_one_that_is_too_large_is_refused_as_it_comes(web: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITRY_PACKAGE_LIMIT", "1000")
    response = web.put("/api/packages/gcs/a.zip", content=b"x" * 1001)
    assert response.status_code == 413
    assert "RABBITRY_PACKAGE_LIMIT" in response.text
    assert web.put("/api/packages/gcs/a.zip", content=b"x" * 1000).status_code == 200
