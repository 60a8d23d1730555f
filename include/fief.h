/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* fief's socket options: setsockopt(2) and getsockopt(2) with these numbers, from any language, without privilege.
 *
 *   setsockopt(fd, SOL_FIEF, FIEF_SOCKET | FIEF_BY_NAME, "blue", 4);     this socket, before bind and connect
 *   setsockopt(fd, SOL_FIEF, FIEF_THREAD | FIEF_BY_NAME, "blue", 4);     the sockets that this thread makes from now on
 *   uint32_t number; socklen_t length = sizeof(number);
 *   getsockopt(accepted, SOL_FIEF, FIEF_SOCKET, &number, &length);       whose is this connection
 *
 * Values: a uint32_t in the host's order (0: none), or with FIEF_BY_NAME a name, at most 63 bytes (empty: none).
 * Reading a name needs room for FIEF_NAME_SIZE bytes and fills it up with zeroes.
 *
 * EPERM        the caller is not a member of the tenant (members of its document; or CAP_NET_ADMIN on the host)
 * ENOENT       there is no such tenant
 * EISCONN      the socket is bound or connected already, and to another tenant
 * ENOPROTOOPT, EOPNOTSUPP   no fief serves this network namespace or control group; or, for FIEF_THREAD and
 *                           FIEF_PROCESS, the kernel cannot follow threads (fief doctor tells)
 */
#ifndef FIEF_H
#define FIEF_H

#define SOL_FIEF 0x6669

#define FIEF_SOCKET 1    /* this socket's tenant */
#define FIEF_THREAD 2    /* the calling thread's; 0 goes back to the process's */
#define FIEF_PROCESS 3   /* the calling process's, of all its threads that have not chosen and of what it starts */

#define FIEF_LISTEN 4    /* one tenant more that this listener of the host's serves; before bind; nobody else is served */

#define FIEF_BY_NAME 0x100
#define FIEF_NAME_SIZE 64

/* A tenant with a network namespace is in no option: its sockets are made there, by the daemon, and handed over.
 *
 *   int fd = fief_socket_at(FIEF_SOCKETS, "blue", AF_INET, SOCK_STREAM, 0);
 *
 * Returns a descriptor (close-on-exec), or -1 with errno: EPERM, ENOENT as above; EAFNOSUPPORT, ESOCKTNOSUPPORT,
 * EPROTONOSUPPORT for anything but TCP and UDP over IP; EAGAIN: the namespace is not there yet; EOPNOTSUPP: a tenant of the
 * host's own stack, whose option is FIEF_SOCKET; those of connect(2), where no daemon runs. Define FIEF_WITH_SOCKETS to
 * have it. */
#define FIEF_SOCKETS "/run/fief/sockets.sock"

#ifdef FIEF_WITH_SOCKETS

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct fief_question {
	uint32_t family, type, protocol;
	char tenant[FIEF_NAME_SIZE];
};

static inline int fief_socket_at(const char *path, const char *tenant, int family, int type, int protocol)
{
	struct fief_question question = { (uint32_t)family, (uint32_t)type, (uint32_t)protocol, "" };
	struct sockaddr_un there = { .sun_family = AF_UNIX };
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	int32_t answer = EPROTO;
	struct iovec part = { &answer, sizeof(answer) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *first;
	int daemon, made = -1;

	if (strlen(tenant) >= sizeof(question.tenant) || strlen(path) >= sizeof(there.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(question.tenant, tenant);
	strcpy(there.sun_path, path);
	daemon = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (daemon < 0)
		return -1;
	if (connect(daemon, (struct sockaddr *)&there, sizeof(there)) ||
	    send(daemon, &question, sizeof(question), MSG_NOSIGNAL) != sizeof(question) ||
	    recvmsg(daemon, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL) < 0) {
		answer = errno;
	} else if (!answer) {
		first = CMSG_FIRSTHDR(&message);
		if (first && first->cmsg_level == SOL_SOCKET && first->cmsg_type == SCM_RIGHTS)
			memcpy(&made, CMSG_DATA(first), sizeof(made));
		else
			answer = EPROTO;
	}
	close(daemon);
	if (made < 0)
		errno = answer;
	return made;
}

#endif

#endif
