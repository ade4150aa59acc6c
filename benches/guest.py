"""A small Linux in QEMU whose power is cut: QEMU is killed, and the disk forgets what was not flushed.

A guest that is killed loses its page cache, but what it has written to its disk lies in the host's files and would
survive. A real disk has a cache of its own, and that loses its content too. So all writes and flushes of the guest are
logged (QEMU's filter blklogwrites), and after the cut they are applied to the disk as it was before: all writes up to
the last flush, and of the later ones all, none or any half of them in pieces of a sector, as a disk may have done.
"""

import os
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "target" / "guest"
# In the order of what needs what; what a kernel has built in is not there.
MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
           "virtio_console"]
SECTOR = 512
# https://docs.kernel.org/admin-guide/device-mapper/log-writes.html
LOG_MAGIC, FLUSH, FUA, DISCARD = 0x6A736677736872, 1, 2, 4
# The fates of what was written after the last flush.
FATES = ("all", "none", "half")

INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in {modules}; do
    if [ -e /lib/guest/$module.ko ]; then insmod /lib/guest/$module.ko; fi
done
# The port appears, and can be opened, a moment after its driver is there.
channel=/dev/none/yet
until (true >"$channel") 2>/dev/null; do
    sleep 0.05
    for channel in /dev/vport*p1; do [ -c "$channel" ] || channel=/dev/none/yet; done
done
exec 3>"$channel"
echo up >&3
mkdir -p /mnt
if mount -t ext4 /dev/vda /mnt; then
    {work}
else
    echo "does not mount" >&3
fi
sync
poweroff -f
"""


class Skip(Exception):
    """Why no guest can run here."""


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, **options)


def kernel():
    """The folder with Debian's kernel for virtual machines, unpacked; fetched with apt when it is not there yet."""
    at = CACHE / "kernel"
    if at.exists():
        return at
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if not shutil.which(tool):
            raise Skip(f"no {tool} to fetch a kernel with")
    with tempfile.TemporaryDirectory() as folder:
        name = wanted()
        if name is None and os.geteuid() == 0:
            subprocess.run(["apt-get", "update", "-qq"])
            name = wanted()
        if name is None:
            raise Skip("apt knows no linux-image-cloud-amd64")
        if subprocess.run(["apt-get", "download", "-qq", name], cwd=folder, capture_output=True).returncode:
            raise Skip(f"cannot download {name}")
        package = next(Path(folder).glob("*.deb"))
        CACHE.mkdir(parents=True, exist_ok=True)
        unpacked = CACHE / f"kernel.{os.getpid()}"
        run("dpkg-deb", "-x", package, unpacked)
        unpacked.rename(at)
    return at


def wanted():
    said = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True).stdout
    names = [line.split()[1] for line in said.splitlines() if line.strip().startswith("Depends:")]
    return names[0] if names else None


def initramfs(at, work, programs):
    """Writes an initial file system with busybox and `programs`, which does `work` on the disk at /mnt."""
    busybox = shutil.which("busybox")
    if not busybox:
        raise Skip("no busybox")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("bin", "dev", "proc", "sys", "lib/guest"):
            (tree / name).mkdir(parents=True)
        shutil.copy(busybox, tree / "bin" / "busybox")
        for name in MODULES:
            for module in kernel().glob(f"lib/modules/*/kernel/**/{name}.ko"):
                shutil.copy(module, tree / "lib" / "guest")
        for program in programs:
            shutil.copy(program, tree / "bin")
            if shutil.which("strip"):
                run("strip", tree / "bin" / Path(program).name)
            # "name => path (address)" and "path (address)"
            for line in run("ldd", program, capture_output=True, text=True).stdout.splitlines():
                library = next((word for word in line.split() if word.startswith("/")), None)
                if library:
                    (tree / library[1:]).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(library, tree / library[1:])
        init = tree / "init"
        init.write_text(INIT.format(modules=" ".join(MODULES), work=work))
        init.chmod(0o755)
        names = "\0".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
        with at.open("wb") as archive:
            run(busybox, "cpio", "-0", "-o", "-H", "newc", cwd=tree, input=names.encode(), stdout=archive,
                stderr=subprocess.DEVNULL)


def log_entries(path):
    """(first sector, sectors, flags, data) of each write, flush and discard."""
    log = path.read_bytes()
    if not log:
        # It was killed before it opened its disk.
        return
    magic, _, _, size = struct.unpack_from("<QQQI", log)
    if magic != LOG_MAGIC:
        raise SystemExit(f"{path} is no log of writes")
    at = size
    while at + size <= len(log):
        sector, sectors, flags, _ = struct.unpack_from("<QQQQ", log, at)
        at += size
        # A write that QEMU was killed in: its place stays empty.
        if not flags and not sectors:
            continue
        data = b"" if flags & DISCARD else log[at:at + sectors * size]
        at += len(data)
        yield sector, sectors, flags, data


class Disk:
    """The disk of a guest, with what would be on the plates."""

    def __init__(self, folder, size=256 << 20):
        self.plates, self.running, self.log = folder / "disk", folder / "disk.running", folder / "disk.log"
        self.plates.unlink(missing_ok=True)
        with self.plates.open("wb") as file:
            file.truncate(size)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.plates)

    def arguments(self):
        """QEMU's, for one boot."""
        run("cp", "--sparse=always", self.plates, self.running)
        self.log.write_bytes(b"")
        return ["-blockdev", f"driver=file,node-name=plates,filename={self.running},cache.no-flush=on",
                "-blockdev", f"driver=file,node-name=writes,filename={self.log},cache.no-flush=on",
                "-blockdev", "driver=blklogwrites,node-name=disk,file=plates,log=writes",
                "-device", "virtio-blk-pci,drive=disk"]

    def lose_power(self, fate):
        """Applies what the last boot wrote; returns how many sectors were written after the last flush."""
        entries = list(log_entries(self.log))
        flushes = [at for at, (_, _, flags, _) in enumerate(entries) if flags & FLUSH]
        safe = flushes[-1] + 1 if flushes else 0
        after = 0
        with self.plates.open("r+b") as plates:
            for number, (first, sectors, flags, data) in enumerate(entries):
                unsafe = number >= safe and not flags & FUA
                if flags & DISCARD:
                    continue
                after += sectors if unsafe else 0
                for offset in range(0, len(data), SECTOR) if unsafe else ():
                    if fate == "all" or fate == "half" and random.random() < 0.5:
                        os.pwrite(plates.fileno(), data[offset:offset + SECTOR], first * SECTOR + offset)
                if not unsafe:
                    os.pwrite(plates.fileno(), data, first * SECTOR)
        return after, len(flushes)


class Guest:
    """One boot; what it says on its channel, first of all "up", is in `heard`."""

    accelerator = "kvm" if os.access("/dev/kvm", os.W_OK) else "tcg"

    def __init__(self, folder, disk, initial, readable=None, words="", arguments=()):
        """`readable`: a file that the guest sees as /dev/vdb; `words`: what is added to /proc/cmdline."""
        qemu = shutil.which("qemu-system-x86_64")
        if not qemu:
            raise Skip("no qemu-system-x86_64")
        self.heard, self.console = folder / "heard", folder / "console"
        self.heard.write_bytes(b"")
        images = list((kernel() / "boot").glob("vmlinuz-*"))
        command = [qemu, "-machine", "q35", "-accel", self.accelerator, "-cpu", "max", "-m", "256", "-nodefaults",
                   "-no-user-config", "-display", "none", "-no-reboot", "-kernel", images[0], "-initrd", initial,
                   "-append", f"console=ttyS0 panic=-1 quiet no_timer_check {words}", "-serial", f"file:{self.console}",
                   *disk.arguments(),
                   "-device", "virtio-serial-pci", "-chardev", f"file,id=channel,path={self.heard}",
                   "-device", "virtserialport,chardev=channel,nr=1", *arguments]
        if readable is not None:
            command += ["-blockdev", f"driver=file,node-name=readable,filename={readable},read-only=on",
                        "-device", "virtio-blk-pci,drive=readable"]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL,
                                        stderr=(folder / "qemu.err").open("wb"))
        self.begun = time.monotonic()

    def said(self):
        """The whole lines that came."""
        return self.heard.read_text(errors="replace").rpartition("\n")[0].splitlines()

    def wait(self, condition, limit):
        """Until `condition` of what was said holds, or the guest ends: whether it holds."""
        while time.monotonic() < self.begun + limit:
            if condition(self.said()):
                return True
            if self.process.poll() is not None:
                return condition(self.said())
            time.sleep(0.02)
        return False

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def choose_accelerator(boot):
    """Falls back to an emulated processor when one under KVM does not come up; `boot` starts a guest."""
    if Guest.accelerator != "kvm":
        return
    guest = boot()
    came_up = guest.wait(lambda said: bool(said), 10)
    guest.kill()
    if not came_up:
        print("no guest comes up under KVM here: the processor is emulated", flush=True)
        Guest.accelerator = "tcg"
