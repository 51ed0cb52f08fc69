"""Servers of weights that answer, do not answer, or are not needed since something was fetched from them before."""

import socket
import threading
import time

import pytest

from invkit.arguments import check_report
from invkit.network import reach


def test_a_server_that_does_not_answer_is_out_of_reach(monkeypatch):
    woken = threading.Event()

    def asleep(*args, **kwargs):
        woken.wait(60)
        raise OSError

    monkeypatch.setattr(reach.socket, "create_connection", asleep)
    monkeypatch.setattr(reach, "REACHED_WITHIN", 0.1)
    began = time.monotonic()
    assert not reach.reachable("https://huggingface.co") and time.monotonic() - began < 2
    woken.set()  # no thread stays behind


def test_a_server_that_answers_is_reached():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert reach.reachable(url)
    assert not reach.reachable(url)


def test_a_proxy_has_to_answer_too(monkeypatch):
    """One that only listens, as behind a dead tunnel, would keep the libraries waiting for minutes."""
    monkeypatch.setattr(reach, "REACHED_WITHIN", 0.3)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.getsockname()[1]}")
        began = time.monotonic()
        assert not reach.reachable("https://huggingface.co") and time.monotonic() - began < 2
        server.accept()[0].close()

        def answer():
            asked, _ = server.accept()
            assert asked.recv(100).startswith(b"CONNECT huggingface.co:443 ")
            asked.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            asked.close()

        monkeypatch.setattr(reach, "REACHED_WITHIN", 20.0)
        answering = threading.Thread(target=answer)
        answering.start()
        assert reach.reachable("https://huggingface.co")
        answering.join()


@pytest.fixture
def offline(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(reach, "reachable", lambda url: asked.append(url))
    for key, folder in (("TORCH_HOME", "torch"), ("HF_HOME", "hf"), ("HF_HUB_CACHE", "hf/hub")):
        monkeypatch.setenv(key, str(tmp_path / folder))
    return asked


@pytest.mark.parametrize(
    ("name", "server"),
    [
        ("torchvision:resnet18", "https://download.pytorch.org"),
        ("timm:resnet18", "https://huggingface.co"),
        ("hf-hub:timm/resnet18.a1_in1k", "https://huggingface.co"),
    ],
)
def test_a_report_without_network_is_a_sentence_before_anything_is_imported(offline, tmp_path, name, server):
    with pytest.raises(FileNotFoundError, match=f"weights of {name} are not here, and {server} does not answer"):
        check_report(name)
    assert offline == [server]
    (tmp_path / "mine.pth").write_bytes(b"")
    check_report(name, tmp_path / "mine.pth")  # with weights of one's own nothing is fetched
    assert offline == [server]


def test_what_was_fetched_before_may_do(offline, tmp_path):
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hf/hub/.locks/models--timm--resnet18").mkdir(parents=True)  # as a failed attempt leaves them
    assert reach.out_of_reach("timm") and reach.out_of_reach("torchvision")
    (tmp_path / "hf/hub/models--timm--resnet18/snapshots/f00").mkdir(parents=True)
    (tmp_path / "hf/hub/models--timm--resnet18/snapshots/f00/model.safetensors").write_bytes(b"")
    assert reach.out_of_reach("timm") is None and reach.out_of_reach("torchvision")
    (tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth").write_bytes(b"")
    assert reach.out_of_reach("torchvision") is None
