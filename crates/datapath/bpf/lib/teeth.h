/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which protections of ports are off: none but where tests look whether they bite. src/ports/mod.rs has their names. */
#ifndef FIEF_TEETH_H
#define FIEF_TEETH_H

const volatile __u32 fief_teeth = 0;

#define TOOTH_LIES 1
#define TOOTH_VERDICT 2
#define TOOTH_STAMP 4
#define TOOTH_WAYS 8
#define TOOTH_FRONTS 16
#define TOOTH_SHARE 32

#endif
