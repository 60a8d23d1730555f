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

#endif
