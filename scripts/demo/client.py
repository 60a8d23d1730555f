"""A client in a few lines: client.py get|hold ADDRESS PORT [--source ADDRESS PORT] [--mark NUMBER]

`get` asks for / over HTTP and prints the status; `hold` connects, says so, and keeps the connection open.
An error of the kernel's is printed by its name, with exit status 1.
"""

import argparse
import errno
import os
import socket
import sys
import time

SO_MARK = 36  # asm-generic/socket.h; Python has no name for it

parser = argparse.ArgumentParser()
parser.add_argument("what", choices=["get", "hold"])
parser.add_argument("address")
parser.add_argument("port", type=int)
parser.add_argument("--source", nargs=2, metavar=("ADDRESS", "PORT"))
parser.add_argument("--mark", type=lambda text: int(text, 0))
options = parser.parse_args()

family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
connection = socket.socket(family, socket.SOCK_STREAM)
connection.settimeout(5)
try:
    if options.mark is not None:
        connection.setsockopt(socket.SOL_SOCKET, SO_MARK, options.mark)
    if options.source:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.bind((options.source[0], int(options.source[1])))
    connection.connect((options.address, options.port))
    if options.what == "hold":
        print("connected", flush=True)
        time.sleep(60)
    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
    answer = b""
    while part := connection.recv(4096):
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    print(head.split(b"\r\n")[0].split(b" ", 1)[1].decode(), body.decode().strip(), sep="  ")
except OSError as error:
    name = errno.errorcode.get(error.errno, "ETIMEDOUT")
    print(name, os.strerror(error.errno) if error.errno else "no answer", sep="  ")
    sys.exit(1)
