/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Whose is a socket that this program makes: cc -I include examples/tenant.c -o tenant && ./tenant blue */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fief.h"

int main(int argc, char **argv)
{
	char name[FIEF_NAME_SIZE];
	socklen_t length = sizeof(name);
	int any, made;

	if (argc != 2) {
		fprintf(stderr, "usage: %s TENANT\n", argv[0]);
		return 2;
	}
	/* The option of a thread is asked through any socket. */
	any = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (setsockopt(any, SOL_FIEF, FIEF_THREAD | FIEF_BY_NAME, argv[1], strlen(argv[1]))) {
		fprintf(stderr, "cannot be %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	/* From here on whatever a library makes in this thread is the tenant's. */
	made = socket(AF_INET6, SOCK_STREAM, 0);
	if (getsockopt(made, SOL_FIEF, FIEF_SOCKET | FIEF_BY_NAME, name, &length))
		return 1;
	printf("%s\n", name);
	return close(made) || close(any);
}
