/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Fetches a page as a tenant that has a network namespace: cc -I include examples/socket.c -o get &&
 * ./get blue 10.10.1.20 80 [PATH OF THE DAEMON'S SOCKET] */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#define FIEF_WITH_SOCKETS
#include "fief.h"

int main(int argc, char **argv)
{
	static const char question[] = "GET / HTTP/1.0\r\n\r\n";
	struct sockaddr_in there = { .sin_family = AF_INET };
	char text[4096];
	ssize_t length;
	int made;

	if (argc < 4 || !inet_aton(argv[2], &there.sin_addr)) {
		fprintf(stderr, "usage: %s TENANT ADDRESS PORT [PATH]\n", argv[0]);
		return 2;
	}
	there.sin_port = htons((uint16_t)atoi(argv[3]));
	made = fief_socket_at(argc > 4 ? argv[4] : FIEF_SOCKETS, argv[1], AF_INET, SOCK_STREAM, 0);
	if (made < 0) {
		fprintf(stderr, "no socket of %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	if (connect(made, (struct sockaddr *)&there, sizeof(there)) || write(made, question, sizeof(question) - 1) < 0) {
		fprintf(stderr, "%s: %s\n", argv[2], strerror(errno));
		return 1;
	}
	while ((length = read(made, text, sizeof(text))) > 0)
		fwrite(text, 1, (size_t)length, stdout);
	return 0;
}
