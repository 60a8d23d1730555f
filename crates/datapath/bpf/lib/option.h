/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The numbers of fief's socket options; include/fief.h shows the same to programs, docs/sockets.md explains them. */
#ifndef FIEF_OPTION_H
#define FIEF_OPTION_H

#define SOL_FIEF 0x6669
#define FIEF_SOCKET 1
#define FIEF_THREAD 2
#define FIEF_PROCESS 3
#define FIEF_LISTEN 4
#define FIEF_BY_NAME 0x100
#define FIEF_NAME_SIZE 64

#endif
