# An unprivileged user with a segment's sockets in his hands: root in a user and network namespace of his own.
#   attacker.py SOCKETS FAMILY GROUP CODE
# The code runs with what is defined here; `u` sends, `g` hears.
import array, ctypes, errno, fcntl, mmap, os, select, socket, struct, sys, time

AT, FAMILY, GROUP, CODE = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
libc = ctypes.CDLL(None, use_errno=True)
NAMES = errno.errorcode
SIX = FAMILY == socket.AF_INET6


def ask(family=FAMILY, group=GROUP):
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(AT)
    stream.sendall(struct.pack("=iii64s", family, 0x10000, 0, group.encode()))
    answer, fds, _, _ = socket.recv_fds(stream, 12, 4)
    number = struct.unpack("=i", answer[:4])[0]
    if number:
        raise OSError(number, os.strerror(number))
    return [socket.socket(fileno=fd) for fd in fds] + [answer[4:]]


def alone():
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(0x10000000 | 0x40000000):
        raise OSError(ctypes.get_errno(), "unshare")
    for file, text in ("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1"):
        with open(f"/proc/self/{file}", "w") as f:
            f.write(text)


def tries(what, work):
    try:
        said = work()
        print(f"{what}: did {said}", flush=True)
        return said
    except OSError as e:
        print(f"{what}: {NAMES.get(e.errno, e.errno)}", flush=True)


def frame(text):
    # To everybody, from 02:00:00:00:00:07.
    return b"\xff" * 6 + b"\x02\0\0\0\0\x07" + b"\x88\xb5" + text.encode()


def mine(text):
    return header + frame(text)


def theirs(text):
    return bytes.fromhex("0800000000abcd00") + frame(text)


def heard(sock, seconds):
    got = []
    end = time.monotonic() + seconds
    while select.select([sock], [], [], max(0, end - time.monotonic()))[0]:
        got.append(sock.recv(65536))
    return got


def hears(what, sock, seconds=0.7):
    for datagram in heard(sock, seconds):
        print(f"{what}: heard {datagram[:8].hex()} {datagram[22:].decode(errors='replace')}", flush=True)
    print(f"{what}: that was all", flush=True)


u, g, header = ask()
to = g.getsockname()
own = u.getsockname()
alone()
print("port", own[1], flush=True)
exec(CODE)
