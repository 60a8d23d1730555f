# An unprivileged user with a segment's sockets in his hands: root in a user and network namespace of his own.
#   attacker.py SOCKETS FAMILY GROUP CODE
# The code runs with what is defined here; `u` sends, `g` hears. With `bare` for SOCKETS, started by root, they are as the
# daemon makes them, but without a guard.
import array, ctypes, errno, fcntl, mmap, os, select, socket, struct, sys, time

AT, FAMILY, GROUP, CODE = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
libc = ctypes.CDLL(None, use_errno=True)
NAMES = errno.errorcode
SIX = FAMILY == socket.AF_INET6


def ask(family=FAMILY, group=GROUP, network=0):
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(AT)
    stream.sendall(struct.pack("=iii64s", family, 0x10000, network, group.encode()))
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


# What comes until one with this text in it has come; never longer than half a minute.
def heard(sock, last):
    got, end = [], time.monotonic() + 30
    while select.select([sock], [], [], max(0, end - time.monotonic()))[0]:
        got.append(sock.recv(65536))
        if last.encode() in got[-1]:
            return got
    print("never heard", last, flush=True)
    return got


def hears(what, sock, last="LAST"):
    for datagram in heard(sock, last):
        print(f"{what}: heard {datagram[:8].hex()} {datagram[22:].decode(errors='replace')}", flush=True)
    print(f"{what}: that was all", flush=True)


# struct sockaddr_in or sockaddr_in6
def sockaddr(at):
    if SIX:
        return struct.pack("=HHI16sI", FAMILY, socket.htons(at[1]), 0, socket.inet_pton(FAMILY, at[0]), 0)
    return struct.pack("=HH4s8x", FAMILY, socket.htons(at[1]), socket.inet_pton(FAMILY, at[0]))


def pointer(buffer):
    return ctypes.addressof(buffer)


# One struct msghdr; what it points to lives as long as the list that comes with it.
def message(data, at):
    name, text = ctypes.create_string_buffer(sockaddr(at)), ctypes.create_string_buffer(data, len(data))
    part = ctypes.create_string_buffer(struct.pack("=QQ", pointer(text), len(data)))
    head = struct.pack("=QI4xQQQQi4x", pointer(name), len(sockaddr(at)), pointer(part), 1, 0, 0, 0)
    return head, [name, text, part]


# sendmmsg(2): how many went
def sendmmsg(all):
    made = [message(data, to) for data in all]
    vector = ctypes.create_string_buffer(b"".join(head + bytes(8) for head, _ in made))
    done = libc.sendmmsg(u.fileno(), vector, len(all), 0)
    if done < 0:
        raise OSError(ctypes.get_errno(), "sendmmsg")
    return done


# One request through io_uring(7): opcode, and the fields of struct io_uring_sqe from `off` on.
def ring(opcode, fields):
    params = ctypes.create_string_buffer(120)
    fd = libc.syscall(425, 4, params)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    sq = struct.unpack_from("=8I", params.raw, 40)
    cq = struct.unpack_from("=6I", params.raw, 80)
    rings = mmap.mmap(fd, 4096 * 4, offset=0)
    sqes = mmap.mmap(fd, 4096, offset=0x10000000)
    sqes[0:64] = struct.pack("=BBHi", opcode, 0, 0, u.fileno()) + fields.ljust(56, b"\0")
    struct.pack_into("=I", rings, sq[6], 0)
    struct.pack_into("=I", rings, sq[1], 1)
    if libc.syscall(426, fd, 1, 1, 1, None, 0) < 0:
        raise OSError(ctypes.get_errno(), "io_uring_enter")
    result = struct.unpack_from("=QiI", rings, cq[5])[1]
    os.close(fd)
    if result < 0:
        raise OSError(-result, "io_uring")
    return result


def ring_send(data):
    head, alive = message(data, to)
    head = ctypes.create_string_buffer(head)
    # IORING_OP_SENDMSG
    done = ring(9, struct.pack("=QQII", 0, pointer(head), 1, 0))
    del alive
    return done


def ring_zerocopy(data):
    name, text = ctypes.create_string_buffer(sockaddr(to)), ctypes.create_string_buffer(data, len(data))
    # IORING_OP_SEND_ZC
    fields = struct.pack("=QQIIQHHHH", pointer(name), pointer(text), len(data), 0, 0, 0, 0, len(sockaddr(to)), 0)
    return ring(47, fields)


def ring_connect(at):
    name = ctypes.create_string_buffer(at)
    # IORING_OP_CONNECT
    return ring(16, struct.pack("=QQ", len(at), pointer(name)))


def ring_set(level, name, value):
    value = ctypes.create_string_buffer(value, len(value))
    # IORING_OP_URING_CMD, SOCKET_URING_OP_SETSOCKOPT
    fields = struct.pack("=IIIIIIQHHIQ", 3, 0, level, name, 0, 0, 0, 0, 0, len(value), pointer(value))
    return ring(46, fields)


def bare():
    one, all = (socket.socket(FAMILY, socket.SOCK_DGRAM) for _ in range(2))
    device = socket.if_nametoindex("eth0")
    own, group = ("fd00::1", "ff05:56de::3e8") if SIX else ("10.0.0.1", "239.0.3.232")
    for s in one, all:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        if SIX:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    all.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    all.bind((group, 14789))
    address = socket.inet_pton(FAMILY, group)
    if SIX:
        all.setsockopt(socket.IPPROTO_IPV6, 20, address + struct.pack("=i", device))
    else:
        all.setsockopt(socket.IPPROTO_IP, 35, address + struct.pack("=4xi", device))
    one.bind((own, 0))
    return [one, all, bytes.fromhex("080000000003e800")]


if AT == "bare":
    pool = [bare() for _ in range(16)]
    ask = lambda: pool.pop()
    os.setgroups([])
    os.setgid(1000)
    os.setuid(41000)
    # PR_SET_DUMPABLE: or /proc/self is root's.
    libc.prctl(4, 1)
u, g, header = ask()
to = g.getsockname()
own = u.getsockname()
alone()
print("port", own[1], flush=True)
exec(CODE)
