"""Uses testcontainers for Python as tests do, one group per run: suite.py GROUP.

What it prints is compared between daemons. Its reaper is the image in RYUK_CONTAINER_IMAGE.
"""

import os
import pathlib
import sys
import time
import urllib.request

from docker import errors
from docker.types import Healthcheck, Mount
from testcontainers.core import labels
from testcontainers.core.container import DockerContainer, ExecConfig, Reaper
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import (
    CompositeWaitStrategy, ExecWaitStrategy, HealthcheckWaitStrategy, HttpWaitStrategy, LogMessageWaitStrategy, PortWaitStrategy,
)


# Strategies look once a second, unless told otherwise.
OFTEN = 0.1


def show(what, value):
    print(f"{what}: {value!r}", flush=True)


def fetch(container, path="/"):
    address = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(8080)}{path}"
    return urllib.request.urlopen(address, timeout=5).read().decode()


def containers():
    with DockerContainer("ringer/web").with_exposed_ports(8080).with_env("A", "1").waiting_for(HttpWaitStrategy(8080).with_poll_interval(OFTEN)) as web:
        show("over a published port", fetch(web))
        show("status", web.get_wrapped_container().status)
        show("exec", tuple(web.exec(["sh", "-c", "echo $A $SERVED; exit 3"])))
        show("exec with settings", tuple(web.exec(ExecConfig(["sh", "-c", "id -u; pwd; echo $B"], user="0", workdir="/tmp", environment={"B": "2"}))))
        made = web.get_wrapped_container().attrs["Config"]["Labels"]
        show("labels", sorted(key for key in made if key.startswith("org.testcontainers")))
        reaper = Reaper._container.get_wrapped_container()
        reaper.reload()
        show("the reaper", (reaper.status, reaper.attrs["HostConfig"]["AutoRemove"], sorted(reaper.attrs["NetworkSettings"]["Ports"])))
    show("gone", not found(all=True))
    with DockerContainer("busybox").with_command("sh -c 'echo out; echo err >&2; exit 4'") as once:
        show("wait", once.wait())
        show("logs", once.get_logs())


def found(**options):
    client = DockerContainer("busybox").get_docker_client().client
    return client.containers.list(filters={"label": f"{labels.LABEL_SESSION_ID}={labels.SESSION_ID}"}, **options)


def waits():
    with DockerContainer("busybox").with_command("sh -c 'echo one; sleep 0.5; echo is ready; sleep 300'").waiting_for(LogMessageWaitStrategy("is ready").with_poll_interval(OFTEN)) as box:
        show("for a line of the log", box.get_logs())
    with DockerContainer("ringer/web").with_exposed_ports(8080).waiting_for(PortWaitStrategy(8080).with_poll_interval(OFTEN)) as web:
        show("for a port", fetch(web, "/files/note"))
    check = Healthcheck(test=["CMD-SHELL", "test -e /tmp/well"], interval=200_000_000, retries=100)
    box = DockerContainer("busybox").with_command("sh -c 'sleep 0.5; touch /tmp/well; sleep 300'").with_kwargs(healthcheck=check)
    with box.waiting_for(HealthcheckWaitStrategy().with_startup_timeout(20).with_poll_interval(OFTEN)):
        show("for health", box.get_wrapped_container().attrs["State"]["Health"]["Status"])
    both = CompositeWaitStrategy(LogMessageWaitStrategy("begun"), ExecWaitStrategy(["test", "-e", "/tmp/there"])).with_poll_interval(OFTEN)
    with DockerContainer("busybox").with_command("sh -c 'echo begun; sleep 0.5; touch /tmp/there; sleep 300'").waiting_for(both) as box:
        show("for a command", box.exec("ls /tmp").output)
    try:
        with DockerContainer("busybox").with_command("sh -c 'exit 5'").waiting_for(LogMessageWaitStrategy("never")):
            show("for one that ends", "was there")
    except RuntimeError as error:
        show("for one that ends", str(error).partition(". ")[0])
    sick = Healthcheck(test=["CMD-SHELL", "echo sick; exit 1"], interval=200_000_000, retries=2)
    try:
        with DockerContainer("busybox").with_command("sleep 300").with_kwargs(healthcheck=sick).waiting_for(HealthcheckWaitStrategy().with_poll_interval(OFTEN)):
            show("for one that is sick", "was well")
    except RuntimeError as error:
        show("for one that is sick", str(error).partition(" Hint")[0])


def files():
    host = pathlib.Path("files")
    (host / "folder").mkdir(parents=True)
    (host / "note").write_text("from the host\n")
    (host / "folder" / "deep").write_text("deep\n")
    box = DockerContainer("busybox").with_command("sleep 300")
    box.with_copy_into_container(host / "note", "/tmp/note").with_copy_into_container(b"bytes\n", "/tmp/run", 0o755)
    box.with_copy_into_container(host / "folder", "/opt")
    box.with_volume_mapping(host.resolve(), "/bound", "ro").with_volume_mapping("py-tc-volume", "/volume", "rw")
    box.with_tmpfs_mount("/scratch", "size=1m").with_kwargs(mounts=[Mount("/anonymous", None)], working_dir="/tmp")
    with box:
        show("copied before the start", box.exec(["sh", "-c", "cat note run /opt/folder/deep; stat -c %a run"]).output)
        show("bound", box.exec(["sh", "-c", "cat /bound/note; touch /bound/x 2>&1"]).output)
        box.copy_into_container(b"later\n", "/volume/later")
        show("copied into a volume", box.exec("cat /volume/later").output)
        box.exec(["sh", "-c", "echo made inside > /tmp/made"])
        box.copy_from_container("/tmp/made", host / "made")
        show("copied from it", (host / "made").read_text())
        show("tmpfs", box.exec(["sh", "-c", "df -k /scratch | tail -n 1 | tr -s ' ' | cut -d' ' -f2"]).output)
        mounts = box.get_wrapped_container().attrs["Mounts"]
        show("mounts", sorted((mount["Type"], mount["Destination"], mount["RW"]) for mount in mounts))
        client = box.get_docker_client().client
    show("volumes after it", [volume.name for volume in client.volumes.list(filters={"name": "py-tc-volume"})])


def networks():
    with Network() as network:
        web = DockerContainer("ringer/web").with_network(network).with_network_aliases("site", "other")
        with web.with_exposed_ports(8080).waiting_for(HttpWaitStrategy(8080).with_poll_interval(OFTEN)):
            with DockerContainer("busybox").with_command("sleep 300").with_network(network) as box:
                show("by alias", [box.exec(f"wget -q -O - http://{name}:8080/").output for name in ("site", "other")])
            with DockerContainer("busybox").with_command("sleep 300") as apart:
                network.connect(apart.get_container_id(), ["late"])
                show("of one connected later", apart.exec("wget -q -O - http://site:8080/files/note").output)
            try:
                network.remove()
            except errors.APIError as error:
                show("removed while in use", error.status_code)
            show("still over its published port", fetch(web))


def images():
    context = pathlib.Path("context")
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox\nARG WHO=nobody\nCOPY note /note\nRUN echo for $WHO >> /note\nCMD cat /note\n")
    (context / "Other").write_text("FROM busybox\nRUN exit 3\n")
    (context / "note").write_text("copied\n")
    with DockerImage(path=context, tag="py-tc-built:one", buildargs={"WHO": "python"}) as image:
        show("built", (str(image), [line["stream"] for line in image.get_logs() if line.get("stream", "").startswith("Step")]))
        with DockerContainer(str(image)) as box:
            show("run", (box.wait(), box.get_logs()))
    try:
        DockerImage(path=context, dockerfile_path="Other").build()
    except errors.BuildError as error:
        show("built in vain", str(error))
    client = DockerContainer("busybox").get_docker_client().client
    show("gone", client.images.list("py-tc-built"))
    try:
        with DockerContainer(f"{os.environ['REGISTRY']}/none:latest"):
            show("an image that is none", "was there")
    except errors.APIError as error:
        show("an image that is none", (type(error).__name__, error.status_code))
    with DockerContainer(f"{os.environ['REGISTRY']}/busybox:latest").with_command("echo pulled") as pulled:
        show("an image from a registry", (pulled.wait(), pulled.get_logs()))


def left():
    """Leaves one of everything behind, says so, and waits to be killed."""
    network = Network().create()
    DockerContainer("busybox").with_command("sleep 300").with_network(network).start()
    DockerContainer("busybox").with_command("true").start().wait()
    client = DockerContainer("busybox").get_docker_client().client
    session = labels.create_labels("", None)
    client.volumes.create("py-tc-left", labels=session)
    pathlib.Path("left").mkdir()
    pathlib.Path("left/Dockerfile").write_text("FROM busybox\nRUN touch /left\n")
    DockerImage(path="left", tag="py-tc-left:one", labels=session).build()
    pathlib.Path("session").write_text(f"{labels.LABEL_SESSION_ID}={labels.SESSION_ID}")
    time.sleep(300)


{"containers": containers, "waits": waits, "files": files, "networks": networks, "images": images, "left": left}[sys.argv[1]]()
