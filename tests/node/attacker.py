"""An action that tries to break out of its container: each ``attack`` tells what came of it.

Runs inside the container, with the standard library alone; ``test_containment.py`` sends it there.
"""

import ctypes
import os
import platform
import resource
import signal
import socket
import stat
import threading

CONNECT_S = 1.0
MIB = 1 << 20
KEYCTL = {"x86_64": 250, "aarch64": 219}[platform.machine()]
CLONE_NEWUSER = 0x10000000
MS_REMOUNT = 32
PR_SET_NO_NEW_PRIVS = 38

libc = ctypes.CDLL(None, use_errno=True)


def outcome(call, *arguments):
    """Return the name of the error that the call ends with, or "done"."""
    try:
        call(*arguments)
    except OSError as error:
        return os.strerror(error.errno) if error.errno else type(error).__name__
    return "done"


def kernel(name, *arguments):
    """Call the C library; raises OSError."""
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def connect(address, port):
    socket.create_connection((address, port), CONNECT_S).close()


def write(path):
    with open(path, "w") as file:
        file.write("1")


def first_text(*paths):
    for path in paths:
        if os.path.exists(path):
            with open(path) as file:
                return file.read().strip()
    return None


def privileges(args):
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    return {
        "ids": [os.getuid(), os.geteuid(), os.getgid(), *os.getgroups()],
        "status": {key: value.strip() for key, value in status.items()},
        "become root": outcome(os.setuid, 0),
        "give a file away": outcome(os.chown, "/tmp", 0, 0),
        "mount": outcome(kernel, "mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "raw socket": outcome(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1),
        "packet socket": outcome(socket.socket, socket.AF_PACKET, socket.SOCK_RAW, 0),
        "host name": outcome(socket.sethostname, "mine"),
        "device": outcome(os.mknod, "/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0)),
        "old privileges": outcome(kernel, "prctl", PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0),
    }


def forbidden_calls(args):
    return {
        "keyctl": outcome(kernel, "syscall", KEYCTL, 0, 0, 0, 0, 0),
        "user namespace": outcome(kernel, "unshare", CLONE_NEWUSER),
    }


def root_file_system(args):
    paths = ("/x", "/etc/x", "/usr/x", "/opt/acs/proxy.py", "/dev/x")
    kernels = ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper")
    limits = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return {
        "write": [outcome(write, path) for path in paths],
        "kernel": [outcome(write, path) for path in kernels],
        "own limits": [outcome(write, path) for path in limits if os.path.exists(path)],
        "remount": outcome(kernel, "mount", None, b"/", None, MS_REMOUNT, None),
        "scratch": outcome(write, "/tmp/x"),
    }


def fill(args):
    """Write until there is no room, and give it back."""
    path = args["path"]
    with open(path, "wb", buffering=0) as file:
        error = outcome(lambda: [file.write(bytes(MIB)) for _ in range(4096)])
        size = file.tell()
    os.remove(path)
    return {"outcome": error, "mib": size // MIB}


def start_threads(args):
    """Start threads until the kernel refuses; they count as processes do."""
    threading.stack_size(64 * 1024)
    let_go = threading.Event()
    started = []
    try:
        for _ in range(args["most"]):
            thread = threading.Thread(target=let_go.wait)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        refused = str(error)
    else:
        refused = ""
    let_go.set()
    for thread in started:
        thread.join()
    return {"started": len(started), "refused": refused}


def take_memory(args):
    """Have a child take memory, and see how it ends."""
    child = os.fork()
    if child == 0:
        taken = bytearray(args["mib"] * MIB)
        for at in range(0, len(taken), 4096):
            taken[at] = 1
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    memory = first_text("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return {
        "killed": killed,
        "limit": int(memory),
        "swap": first_text("/sys/fs/cgroup/memory.swap.max"),
        "swappiness": first_text("/sys/fs/cgroup/memory/memory.swappiness"),
    }


def open_files(args):
    held = []
    try:
        error = outcome(lambda: [held.append(os.open("/tmp", os.O_RDONLY)) for _ in range(9999)])
    finally:
        for number in held:
            os.close(number)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999))
        raised = "done"
    except (OSError, ValueError) as refusal:
        raised = str(refusal)
    core = resource.getrlimit(resource.RLIMIT_CORE)
    return {"outcome": error, "opened": len(held), "raise": raised, "core": core}


def look_around(args):
    """Return what of the host and of others can be seen."""
    sockets = []
    for folder, folders, files in os.walk("/"):
        if folder == "/":
            folders.remove("proc")
        for name in files:
            path = os.path.join(folder, name)
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                sockets.append(path)
    environments = {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/environ") as file:
                environments[process] = file.read().split("\0")
        except OSError as error:
            environments[process] = os.strerror(error.errno)
    with open("/proc/self/mounts") as file:
        mounts = [line.split()[1] for line in file]
    docker = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")
    return {
        "sockets": sockets,
        "docker": [outcome(socket.socket(socket.AF_UNIX).connect, path) for path in docker],
        "environment": dict(os.environ),
        "environments": environments,
        "mounts": mounts,
        "scratch": [sorted(os.listdir(folder)) for folder in ("/tmp", "/dev/shm")],
        "shared": [outcome(os.listdir, "/acs"), outcome(os.listdir, f"/acs/../{args['other']}")],
        "devices": sorted(os.listdir("/dev")),
        "interfaces": [name for _, name in socket.if_nameindex()],
    }


def leave_a_secret(args):
    for path in ("/tmp/secret", "/dev/shm/secret"):
        with open(path, "w") as file:
            file.write("of this action")
    return {}


def listen(args):
    """Accept connections on every address, and prove that it does."""
    listener = socket.create_server(("0.0.0.0", args["port"]))
    accepting = threading.Thread(
        target=lambda: [listener.accept()[0].close() for _ in range(9)], daemon=True
    )
    accepting.start()
    connect("127.0.0.1", args["port"])
    return {}


def knock(args):
    """Try to connect to each ``[address, port]``."""
    return {"outcomes": [outcome(connect, *target) for target in args["targets"]]}


def gateway(args):
    with open("/proc/net/route") as file:
        for line in file:
            fields = line.split()
            if fields[1] == "00000000":
                return {"address": socket.inet_ntoa(bytes.fromhex(fields[2])[::-1])}
    return {"address": None}


def own(args):
    """Listen on an address, which works where it is this container's, and connect to it."""
    target = (args["address"], args["port"])
    with socket.create_server(target) as listener:
        connect(*target)
        with listener.accept()[0] as connection:
            return {"peer": connection.getpeername()[0]}


def main(args):
    return globals()[args["attack"]](args)
