"""Drives a Docker daemon through docker-py, one group of its API per run: suite.py GROUP.

What it prints is compared between daemons. A call that raises an API error prints its status and text.
"""

import io
import os
import sys
import tarfile

import docker
from docker import errors, types

client = docker.from_env(version="auto", timeout=60)
api = client.api


def show(what, value):
    print(f"{what}: {value!r}")


def fails(what, call, *arguments, **options):
    """Shows the error that the call has to raise."""
    try:
        value = call(*arguments, **options)
    except errors.APIError as error:
        show(what, (type(error).__name__, error.status_code, error.explanation))
    except errors.DockerException as error:
        show(what, (type(error).__name__, str(error)))
    else:
        sys.exit(f"{what} did not fail but gave {value!r}")


def archive(**files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()


def system():
    show("ping", client.ping())
    show("version", sorted(client.version())[:3])
    info = client.info()
    show("info", (info["OSType"], info["Architecture"], info["Swarm"]["LocalNodeState"], info["NCPU"] > 0))


def containers():
    show("run", client.containers.run("busybox", "echo hello", remove=True))
    show("run with stderr", client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], remove=True, stderr=True, stdout=False))
    try:
        client.containers.run("busybox", ["sh", "-c", "echo broken >&2; exit 3"], remove=True)
    except errors.ContainerError as error:
        show("run that fails", (error.exit_status, error.stderr))
    box = client.containers.run(
        "busybox", "sleep 300", name="py-box", detach=True, environment={"A": "1"}, labels={"kind": "test"},
        mem_limit="64m", nano_cpus=500_000_000, pids_limit=50, cap_add=["SYS_CHROOT"], tmpfs={"/t": "size=1m"},
        ports={"80/tcp": None}, extra_hosts={"h": "192.0.2.1"}, dns=["192.0.2.53"], hostname="py",
        ulimits=[types.Ulimit(name="nofile", soft=100, hard=200)], restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
        log_config=types.LogConfig(type="json-file", config={"max-size": "1m"}), shm_size="8m", working_dir="/tmp",
        mounts=[types.Mount("/m", "py-volume"), types.Mount("/mt", None, type="tmpfs")], stop_signal="SIGKILL",
    )
    box.reload()
    show("status", (box.status, box.name, box.labels, box.image.tags))
    host = box.attrs["HostConfig"]
    show("host config", {key: host.get(key) for key in ("Memory", "NanoCpus", "PidsLimit", "CapAdd", "Tmpfs", "ExtraHosts", "Dns", "Init", "Ulimits", "RestartPolicy", "LogConfig", "ShmSize", "Mounts")})
    show("mounts", sorted((mount["Type"], mount["Destination"], mount.get("Name", ""), mount["RW"]) for mount in box.attrs["Mounts"]))
    show("ports", sorted(box.ports))
    show("get", client.containers.get("py-box").id == box.id)
    show("list", [found.name for found in client.containers.list(filters={"label": "kind=test"})])
    show("list of none", client.containers.list(filters={"name": "py-nobody"}))
    show("top", [process[-1] for process in box.top(ps_args="-o pid,args")["Processes"]])
    box.pause()
    box.reload()
    show("paused", box.status)
    box.unpause()
    box.rename("py-renamed")
    box.reload()
    show("renamed", box.name)
    box.restart(timeout=0)
    box.kill(signal="SIGWINCH")
    box.stop(timeout=1)
    show("wait", box.wait())
    box.start()
    box.kill()
    show("wait after kill", box.wait(condition="not-running"))
    box.remove(v=True)
    fails("get of one removed", client.containers.get, "py-renamed")
    made = client.containers.create("ringer/web", detach=True, healthcheck={"test": ["CMD", "true"], "interval": 10**9})
    show("created", (made.status, made.attrs["Config"]["Healthcheck"], made.attrs["Config"]["User"]))
    made.remove()


def streams():
    box = client.containers.create("busybox", ["sh", "-c", "echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three"])
    attached = box.attach(stream=True, stdout=True, stderr=True, demux=True)
    box.start()
    show("attach, apart", [pair for pair in attached])
    show("wait", box.wait())
    show("logs", box.logs())
    show("logs of stderr", box.logs(stdout=False))
    show("logs, last", box.logs(tail=1))
    show("logs as a stream", b"".join(box.logs(stream=True, follow=True)))
    show("logs with times", len(box.logs(timestamps=True).split(b"\n")[0]) > 30)
    cat = client.containers.create("busybox", "cat", stdin_open=True, tty=False)
    socket = cat.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    cat.start()
    socket._sock.sendall(b"through the socket\n")
    show("attach socket", socket.read(8 + 19))
    socket.close()
    cat.remove(force=True)
    tty = client.containers.run("busybox", ["sh", "-c", "sleep 0.3; stty size"], tty=True, detach=True)
    tty.resize(30, 100)
    tty.wait()
    show("a terminal", tty.logs())


def execs():
    box = client.containers.run("busybox", "sleep 300", detach=True, name="py-exec")
    show("exec", box.exec_run("echo hello"))
    show("exec that fails", box.exec_run(["sh", "-c", "echo bad >&2; exit 7"]))
    show("exec, apart", box.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True))
    show("exec with settings", box.exec_run(["sh", "-c", "id -u; pwd; echo $X"], user="1", workdir="/tmp", environment={"X": "y"}))
    show("exec as a stream", b"".join(box.exec_run(["sh", "-c", "echo a; echo b"], stream=True).output))
    show("exec with a terminal", box.exec_run("tty", tty=True).output)
    show("exec of nothing", box.exec_run("/no/such")[0])
    made = api.exec_create(box.id, "cat", stdin=True)
    socket = api.exec_start(made["Id"], socket=True)
    socket._sock.sendall(b"typed\n")
    show("exec socket", socket.read(8 + 6))
    socket.close()
    made = api.exec_create(box.id, ["sh", "-c", "exit 4"])
    show("detached", api.exec_start(made["Id"], detach=True))
    found = api.exec_inspect(made["Id"])
    while found["Running"]:
        found = api.exec_inspect(made["Id"])
    show("inspect", (found["ExitCode"], found["ProcessConfig"]["entrypoint"], found["ProcessConfig"]["arguments"]))
    fails("exec in none", api.exec_create, "py-nobody", "true")
    box.remove(force=True)
    fails("exec of one removed", api.exec_inspect, made["Id"])


def archives():
    box = client.containers.create("busybox", "true", name="py-archive")
    show("put", box.put_archive("/tmp", archive(note="hello", other="x")))
    data, stat = box.get_archive("/tmp/note")
    show("stat", (stat["name"], stat["size"], stat["linkTarget"]))
    with tarfile.open(fileobj=io.BytesIO(b"".join(data))) as tar:
        show("get", [(entry.name, tar.extractfile(entry).read()) for entry in tar])
    fails("get of nothing", box.get_archive, "/no/such")
    fails("put to nothing", box.put_archive, "/no/such", archive(a="b"))
    box.remove()


def networks():
    pool = types.IPAMConfig(pool_configs=[types.IPAMPool(subnet="198.51.100.0/24", gateway="198.51.100.254")])
    net = client.networks.create("py-net", driver="bridge", ipam=pool, labels={"kind": "test"}, internal=False, attachable=True)
    show("attrs", {key: net.attrs[key] for key in ("Name", "Scope", "Driver", "Internal", "Attachable", "Ingress", "Labels", "IPAM")})
    box = client.containers.run("busybox", "sleep 300", detach=True, network="py-net", name="py-on-net")
    other = client.containers.run("busybox", "sleep 300", detach=True, name="py-other")
    net.connect(other, aliases=["other"], ipv4_address="198.51.100.77")
    show("name", box.exec_run("ping -c 1 -W 3 other")[0])
    net.reload()
    show("containers", sorted(found.name == "py-on-net" for found in net.containers))
    other.reload()
    show("address", other.attrs["NetworkSettings"]["Networks"]["py-net"]["IPAddress"])
    fails("connect twice", net.connect, other)
    net.disconnect(other)
    # With two, dockerd names them in any order.
    fails("remove while in use", net.remove)
    net.disconnect(box, force=True)
    show("list", [found.name for found in client.networks.list(names=["py-net"])])
    show("list, greedy", [found.name for found in client.networks.list(filters={"label": "kind=test"}, greedy=True)])
    box.remove(force=True)
    other.remove(force=True)
    net.remove()
    fails("get of one removed", client.networks.get, "py-net")


def volumes():
    volume = client.volumes.create("py-vol", labels={"kind": "test"})
    show("attrs", {key: volume.attrs[key] for key in ("Name", "Driver", "Scope", "Labels", "Options")})
    client.containers.run("busybox", "sh -c 'echo kept > /v/note'", volumes={"py-vol": {"bind": "/v", "mode": "rw"}}, remove=True)
    show("kept", client.containers.run("busybox", "cat /v/note", volumes=["py-vol:/v:ro"], remove=True))
    show("list", [found.name for found in client.volumes.list(filters={"label": "kind=test"})])
    holder = client.containers.create("busybox", volumes=["py-vol:/v"])
    fails("remove while in use", volume.remove)
    holder.remove()
    volume.remove()
    fails("get of one removed", client.volumes.get, "py-vol")


def images():
    image = client.images.get("busybox")
    show("tags", image.tags)
    show("tag", image.tag("py-image", tag="one"))
    show("list", [found.tags for found in client.images.list(name="py-image")])
    show("history", [(layer["CreatedBy"], layer["Comment"]) for layer in client.images.get("ringer/web").history()])
    saved = b"".join(api.get_image("py-image:one"))
    client.images.remove("py-image:one")
    show("load", [found.tags for found in client.images.load(saved)][0][-1:])
    client.images.remove("py-image:one")
    fails("get of none", client.images.get, "py-nothing")
    fails("remove of none", client.images.remove, "py-nothing")
    imported = api.import_image_from_data(archive(file="x"), repository="py-imported", tag="one", changes=["CMD x"])
    show("import", "sha256" in imported)
    show("imported", client.images.get("py-imported:one").attrs["Config"]["Cmd"])
    client.images.remove("py-imported:one")


def registry():
    name = f"{os.environ['REGISTRY']}/busybox"
    show("pull", client.images.pull(name, tag="latest").tags[0:1] != [])
    show("pull as a stream", [part["status"] for part in api.pull(name, tag="latest", stream=True, decode=True)][-1])
    fails("pull of none", client.images.pull, f"{os.environ['REGISTRY']}/none", tag="latest")
    show("login", client.login("ringer", "secret", registry=os.environ["LOGIN_REGISTRY"])["Status"])
    private = f"{os.environ['LOGIN_REGISTRY']}/busybox"
    show("pull with credentials", client.images.pull(private, tag="latest", auth_config={"username": "ringer", "password": "secret"}).tags != [])
    fails("login with a wrong password", client.login, "ringer", "wrong", registry=os.environ["LOGIN_REGISTRY"], reauth=True)


def events():
    live = client.events(decode=True, filters={"type": "container", "label": "kind=events"})
    box = client.containers.run("busybox", "true", detach=True, labels={"kind": "events"}, name="py-events")
    box.wait()
    box.remove()
    seen = []
    for event in live:
        seen.append((event["Type"], event["Action"], event["Actor"]["Attributes"].get("name"), event["Actor"]["Attributes"].get("exitCode")))
        if event["Action"] == "destroy":
            break
    live.close()
    for event in seen:
        show("event", event)


def raises():
    fails("image that is none", client.containers.create, "py-nothing:none")
    fails("command that is none", client.containers.run, "busybox", "/no/such", remove=True)
    box = client.containers.create("busybox", "true", name="py-taken")
    fails("name that is taken", client.containers.create, "busybox", name="py-taken")
    fails("kill of one that is not running", box.kill)
    fails("pause of one that is not running", box.pause)
    box.remove()
    fails("remove of none", api.remove_container, "py-taken")
    fails("network that is none", client.containers.run, "busybox", "true", network="py-nowhere")
    fails("bad filter", client.containers.list, filters={"nosuch": "x"})


def build():
    for part in api.build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo made > /note\nLABEL a=b\nCMD cat /note\n"), tag="py-built", rm=True, decode=True):
        if "stream" in part and part["stream"].startswith(("Step", "Successfully tagged")):
            show("build", part["stream"])
    show("run", client.containers.run("py-built", remove=True))
    try:
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 3\n"), rm=True)
    except errors.BuildError as error:
        show("build that fails", str(error))


def rest():
    box = client.containers.run("busybox", ["sh", "-c", "echo x > /added; sleep 300"], detach=True, name="py-rest")
    while not any(change["Path"] == "/added" for change in box.diff() or []):
        pass
    show("diff", box.diff())
    image = box.commit("py-committed", tag="one", message="said", changes="CMD cat /added")
    show("commit", image.tags)
    show("run what was committed", client.containers.run("py-committed:one", remove=True))
    with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as tar:
        show("export", "added" in tar.getnames())
    # Each daemon is asked with its newest version: `os_type` and the other shape of df came with 1.52.
    show("stats", sorted(set(box.stats(stream=False)) - {"os_type"}))
    show("update", box.update(mem_limit="64m", memswap_limit="128m"))
    box.reload()
    show("updated", box.attrs["HostConfig"]["Memory"])
    box.remove(force=True)


def prune():
    df = client.df()
    show("df", [kind for kind in ("Image", "Container", "Volume") if f"{kind}s" in df or f"{kind}Usage" in df])
    client.containers.create("busybox", "true", labels={"prune": "me"})
    show("containers", len(client.containers.prune(filters={"label": "prune=me"})["ContainersDeleted"]))
    client.networks.create("py-prune", labels={"prune": "me"})
    show("networks", client.networks.prune(filters={"label": "prune=me"}))
    client.volumes.create(labels={"prune": "me"})
    show("volumes", len(client.volumes.prune(filters={"label": "prune=me"})["VolumesDeleted"]))
    show("images", client.images.prune(filters={"dangling": True, "label": "prune=me"})["SpaceReclaimed"])


def swarm():
    fails("services", client.services.list)
    fails("nodes", client.nodes.list)
    fails("secrets", client.secrets.list)
    fails("leave", client.swarm.leave)
    show("plugins", client.plugins.list())


{
    "system": system, "containers": containers, "streams": streams, "execs": execs, "archives": archives, "networks": networks,
    "volumes": volumes, "images": images, "registry": registry, "events": events, "errors": raises, "build": build, "rest": rest,
    "prune": prune, "swarm": swarm,
}[sys.argv[1]]()
