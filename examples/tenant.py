#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""A server for every tenant that says, to whoever connects, which tenant it took him for: tenant.py [PORT]"""
import socket
import sys

SOL_FIEF, FIEF_SOCKET, FIEF_BY_NAME, FIEF_NAME_SIZE = 0x6669, 1, 0x100, 64


def tenant(connection):
    """The name of the tenant a connection belongs to; empty for the host's own."""
    name = connection.getsockopt(SOL_FIEF, FIEF_SOCKET | FIEF_BY_NAME, FIEF_NAME_SIZE)
    return name.rstrip(b"\0").decode()


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(f"you are {tenant(connection) or 'of the host'}\n".encode())
