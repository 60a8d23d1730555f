# Appended to attacker.py: calls of the kernel, chosen at random from a grammar of what goes with a UDP socket.
# SEED and COUNT are set before; MARK, which is in whatever is sent, and THEIRS, ports of others, may be. The test looks at
# the wire. What only the caller can see
# is printed: options that were set, headers in pages that were taken, and what was heard.
import random

rnd = random.Random(SEED)
MARK, THEIRS = globals().get("MARK", "MARK"), globals().get("THEIRS", [])
pick, number = rnd.choice, lambda n: struct.pack("=i", n)
ADDRESSES = ["ff05:56de::3e8", "ff05:56de::3e9", "ff02::1", "fd00::9", "fd00::1", "fd00::77", "fd00::2", "::1", "fd01::9", "::",
             "::ffff:10.0.0.9"] if SIX else \
    ["239.0.3.232", "239.0.3.233", "224.0.0.1", "10.0.0.9", "10.0.0.1", "10.0.0.77", "10.0.0.2", "127.0.0.1", "10.1.0.9",
     "10.0.0.255", "255.255.255.255", "0.0.0.0"]
PORTS = [14789, 5555, 5556, 53, 0, 65535, own[1], *THEIRS, *THEIRS]
LEVELS = [0, 1, 17, 41, 58, 136, 263, 6]
LISTED = {(1, 7), (1, 8), (1, 20), (1, 21), (1, 66), (1, 67), (0, 8), (17, 104), (41, 49)}
PEER = ("fd00::9" if SIX else "10.0.0.9", 5555)
# Options that a UDP socket has and a user may set, or has once had: SO_*, IP_*, IPV6_*, UDP_*.
OPTIONS = [(1, n) for n in (2, 6, 7, 8, 12, 13, 15, 20, 25, 29, 36, 37, 46, 47, 60, 61, 62)] + \
    [(0, n) for n in (1, 2, 4, 8, 10, 11, 12, 15, 19, 23, 32, 33, 34, 35, 36, 39, 40, 41, 48, 49, 50)] + \
    [(41, n) for n in (1, 8, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 29, 42, 49, 50, 51, 52, 57, 62, 66, 67, 70, 75)] + \
    [(17, n) for n in (1, 100, 101, 102, 103, 104)]


def address():
    return socket.inet_pton(FAMILY, pick(ADDRESSES))


def there():
    return to if rnd.random() < 0.5 else (pick(ADDRESSES), pick(PORTS))


def head():
    kind = rnd.random()
    if kind < 0.5:
        return header
    if kind < 0.6:
        # The next group's, and the one before.
        return bytes.fromhex(pick(["080000000003e900", "080000000003e800"]))
    if kind < 0.7:
        other = bytearray(header)
        other[rnd.randrange(8)] ^= 1 << rnd.randrange(8)
        return bytes(other)
    return rnd.randbytes(8) if kind < 0.9 else header[:rnd.randrange(8)]


def datagram():
    one = head() + frame(MARK * pick([1, 1, 1, 5, 500, 3000]))
    while rnd.random() < 0.2:
        # Cut up by UDP_SEGMENT, each is one.
        one = one[:60].ljust(60, b".") + (head() + frame(MARK)).ljust(60, b".")
    return one


def message_of_control():
    return pick([
        lambda: (0, 2, number(rnd.randrange(256))),
        lambda: (0, 1, number(rnd.randrange(256))),
        lambda: (0, 7, rnd.randbytes(rnd.randrange(41))),
        lambda: (0, 7, bytes([pick([131, 137, 7, 68, 148]), 7, 4]) + rnd.randbytes(4) + b"\0"),
        lambda: (0, 8, number(pick([0, 1, 2, 3, 4, 5])) + rnd.randbytes(4) + bytes(4)),
        lambda: (0, 8, number(pick([0, 1, 2, 3, 4, 5])) + address()[:4] + bytes(4)),
        lambda: (41, 50, address().ljust(16, b"\0") + number(pick([0, 1, 2, 3, 4, 5]))),
        lambda: (41, 52, number(rnd.randrange(256))),
        lambda: (41, 67, number(rnd.randrange(256))),
        lambda: (41, pick([54, 55, 57, 59]), rnd.randbytes(rnd.randrange(40))),
        lambda: (17, 103, struct.pack("=H", pick([0, 8, 9, 30, 60, 120, 1400, 65535]))),
        lambda: (1, pick([36, 37, 61, 12]), rnd.randbytes(pick([4, 8]))),
        lambda: (pick(LEVELS), rnd.randrange(80), rnd.randbytes(pick([0, 1, 2, 4, 8, 12, 20]))),
    ])()


# A valid one for the card to cut up.
def segments():
    heads = [header, header, theirs("")[:8]] if rnd.random() < 0.5 else [header]
    parts = [pick(heads) + frame(MARK) for _ in range(rnd.randrange(2, 5))]
    size = struct.pack("=H", 30)
    u.sendmsg([b"".join(part.ljust(30, b".") for part in parts)], [(17, 103, size)], socket.MSG_DONTWAIT, pick([to, PEER, PEER]))


def option():
    level, name = pick(OPTIONS) if rnd.random() < 0.7 else (pick(LEVELS), rnd.randrange(110))
    sock().setsockopt(level, name, pick([
        number(0), number(1), number(1), number(rnd.randrange(1 << 16)), address() + number(0), address() + address(),
        address() + bytes(4) + number(3), rnd.randbytes(pick([1, 4, 8, 12, 16, 20, 136])), b"eth1\0", b"\0"]))
    if (level, name) not in LISTED:
        found("option", level, name)


# What outsiders send has EVIL in it where it is not of the segment.
def hears_some():
    for s in u, g:
        try:
            data = s.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        if b"EVIL" in data:
            found("foreign" if data[:8] != header else "several")


told = set()


def found(what, *more):
    if (what, more) not in told:
        told.add((what, more))
        print("found", what, *more, flush=True)


def flags():
    all = 0
    while rnd.random() < 0.4:
        all |= pick([0x8000, 0x4, 0x800, 0x4000000, 0x10, 0x1, 0x80, 0x2000, 0x20000000])
    return all | socket.MSG_DONTWAIT


def sends():
    control = [message_of_control() for _ in range(pick([0, 0, 1, 1, 2]))]
    data = datagram()
    cut = rnd.randrange(len(data) + 1)
    sock().sendmsg([data[:cut], data[cut:]], control, flags(), there())


def splices():
    file = os.memfd_create("page")
    into, out = os.pipe()
    try:
        data = datagram()[:60000]
        cut = rnd.randrange(12)
        try:
            # What an earlier call left unfinished (MSG_MORE) would stand before it.
            u.sendto(b"", socket.MSG_DONTWAIT, to)
        except OSError:
            pass
        os.write(file, data[cut:])
        u.sendto(data[:cut], socket.MSG_MORE | socket.MSG_DONTWAIT, there())
        os.splice(file, out, len(data) - cut, offset_src=0)
        at_once = data[:8] == header and cut < 8
        os.splice(into, u.fileno(), len(data) - cut, flags=2)
        if at_once:
            found("page")
    finally:
        for fd in file, into, out:
            os.close(fd)


def many():
    global to
    all, right = [datagram() for _ in range(rnd.randrange(1, 4))], to
    try:
        to = there()
        sendmmsg(all)
    finally:
        to = right


def rings():
    global to
    right = to
    try:
        to = there()
        pick([lambda: ring_send(datagram()), lambda: ring_zerocopy(datagram()), lambda: ring_connect(struct.pack("=H26x", 0)),
              lambda: ring_connect(sockaddr(there())),
              lambda: ring_set(pick(LEVELS), rnd.randrange(110), rnd.randbytes(pick([1, 4, 8, 20])))])()
    finally:
        to = right


def sock():
    return u if rnd.random() < 0.8 else g


CALLS = [
    (30, sends),
    (3, splices),
    (5, many),
    (1, rings),
    (4, lambda: sock().connect(there())),
    (2, lambda: libc.connect(sock().fileno(), struct.pack("=H26x", 0), pick([16, 28]))),
    (3, lambda: sock().bind(there())),
    (12, option),
    (2, segments),
    (5, hears_some),
    (2, lambda: sock().getsockopt(pick(LEVELS), rnd.randrange(110), 64)),
    (2, lambda: fcntl.ioctl(sock(), pick([0x8910, 0x8913, 0x8914, 0x8916, 0x8933, 0x894c, 0x8906, 0x541b, 0x5411, 0x8902]),
                            b"eth1".ljust(40, b"\0"))),
    (1, lambda: sock().send(datagram(), socket.MSG_DONTWAIT)),
    (1, lambda: sock().recv(65536, pick([0x40, 0x42, 0x2040]))),
    (1, lambda: libc.listen(sock().fileno(), 1)),
]
WEIGHTS, WORK = [weight for weight, _ in CALLS], [work for _, work in CALLS]
went = {}
for turn in range(COUNT):
    if turn % 2000 == 0:
        for old in u, g:
            old.close()
        u, g, header = ask()
        to, own = g.getsockname(), u.getsockname()
        print("now", own[1], flush=True)
    work = rnd.choices(WORK, WEIGHTS)[0]
    try:
        work()
        came = "ok"
    except (OSError, OverflowError, ValueError) as e:
        came = NAMES.get(getattr(e, "errno", None), type(e).__name__)
    key = (getattr(work, "__name__", "?"), came)
    went[key] = went.get(key, 0) + 1
for (what, came), times in sorted(went.items()):
    print("went", what, came, times)
print("all", COUNT, flush=True)
