"""Views of the explorer for its tests, and requests to its server."""

import http.client
from contextlib import closing

from conftest import PATIENCE
from poolkit.explore.asked import read
from poolkit.explore.pictures import pictures
from poolkit.explore.scene import scene

PICTURES = {one["name"]: one["cells"] for one in pictures()}


def view(name="signs", **values):
    return read({"cells": PICTURES[name], **values})


def only(name="signs", **values):
    """The one answer of a view."""
    (found,) = scene(view(name, **values))["answers"]
    assert "error" not in found, found
    return found


def ask(running, method, path, body=None, **headers):
    """A request as the page sends it; `running`: host, port and key. Status and body."""
    host, port, key = running
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    headers = {
        "Cookie": f"poolkit-{port}={key}",
        "Origin": f"http://{host}:{port}",
        "Content-Type": "application/json",
        **headers,
    }
    connection.request(method, path, body, headers)
    with closing(connection):
        answer = connection.getresponse()
        return answer.status, answer.read()
