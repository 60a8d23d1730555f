//! `vxvdex://` for programs that speak VDE: a plug-in that libvdeplug (4) finds by its name, libvdeplug_vxvdex.so.
//!
//! This file is the library's side of it: C functions and a table of them. What they do is in `plug.rs`. A panic never
//! crosses over to C; it is EIO there.
//!
//! The library's header libvdeplug_mod.h has the same declarations. It fills in the first two fields of a connection when
//! `open_real` returns, and keeps to one connection's calls being made by anybody, so that each may come from another thread.

mod inbox;
mod outbox;
mod plug;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use plug::Plug;

/// `struct vdeplug_module`
#[repr(C)]
pub struct Module {
    flags: c_int,
    open_real: extern "C" fn(*mut c_char, *mut c_char, c_int, *mut c_void) -> *mut Connection,
    recv: extern "C" fn(*mut Connection, *mut c_void, usize, c_int) -> isize,
    send: extern "C" fn(*mut Connection, *const c_void, usize, c_int) -> isize,
    datafd: extern "C" fn(*mut Connection) -> c_int,
    ctlfd: extern "C" fn(*mut Connection) -> c_int,
    close: extern "C" fn(*mut Connection) -> c_int,
}

/// `struct vdeconn`, of which the first two fields are the library's.
#[repr(C)]
pub struct Connection {
    handle: *mut c_void,
    module: *mut Module,
    plug: Plug,
}

/// What the library looks for.
#[unsafe(no_mangle)]
pub static vdeplug_ops: Module = Module { flags: 0, open_real, recv, send, datafd, ctlfd, close };

/// `recv` says so of what is no frame; errno is EAGAIN.
const IGNORE: isize = 1;

/// The library gives what is behind `vxvdex://`; of who opens it we need to know nothing.
extern "C" fn open_real(url: *mut c_char, _: *mut c_char, _: c_int, _: *mut c_void) -> *mut Connection {
    let open = || {
        let url = if url.is_null() {
            String::new()
        } else {
            // SAFETY: the library gives a string that ends with a zero, and it lives until we return.
            unsafe { CStr::from_ptr(url) }.to_string_lossy().into_owned()
        };
        match Plug::open(&url) {
            Ok(plug) => {
                let (handle, module) = (std::ptr::null_mut(), std::ptr::null_mut());
                Box::into_raw(Box::new(Connection { handle, module, plug }))
            }
            Err(error) => {
                // The library has an errno for it, and there are more reasons than numbers.
                eprintln!("vxvdex: {error}");
                set_errno(error.errno());
                std::ptr::null_mut()
            }
        }
    };
    guarded(std::ptr::null_mut(), open)
}

extern "C" fn recv(connection: *mut Connection, to: *mut c_void, length: usize, _: c_int) -> isize {
    guarded(-1, || {
        let Some(plug) = plug(connection) else { return -1 };
        if to.is_null() {
            return failed(libc::EFAULT);
        }
        // SAFETY: the caller says that so many bytes at `to` are his to be written; nothing reads them before.
        let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), length.min(isize::MAX as usize)) };
        match plug.receive(to) {
            Ok(Some(length)) => length as isize,
            Ok(None) => {
                set_errno(libc::EAGAIN);
                IGNORE
            }
            Err(error) => failed(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    })
}

extern "C" fn send(connection: *mut Connection, from: *const c_void, length: usize, _: c_int) -> isize {
    guarded(-1, || {
        let Some(plug) = plug(connection) else { return -1 };
        if from.is_null() {
            return failed(libc::EFAULT);
        }
        // SAFETY: the caller says that so many bytes at `from` are a frame, which stays as it is until we return.
        let frame = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), length.min(isize::MAX as usize)) };
        match plug.send(frame) {
            Ok(()) => length as isize,
            Err(error) => failed(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    })
}

extern "C" fn datafd(connection: *mut Connection) -> c_int {
    guarded(-1, || plug(connection).map_or(-1, Plug::descriptor))
}

/// There is nobody at the other end who could hang up.
extern "C" fn ctlfd(_: *mut Connection) -> c_int {
    -1
}

extern "C" fn close(connection: *mut Connection) -> c_int {
    guarded(-1, || {
        if connection.is_null() {
            return failed(libc::EBADF) as c_int;
        }
        // SAFETY: the pointer is one that `open_real` gave, and who closes it uses it no more.
        drop(unsafe { Box::from_raw(connection) });
        0
    })
}

fn plug<'a>(connection: *mut Connection) -> Option<&'a Plug> {
    // SAFETY: the pointer is null or one that `open_real` gave and nobody has closed. Only a shared reference to `plug` is
    // made of it, so that calls may come from several threads, and the library may write to the fields before it.
    let plug = unsafe { connection.as_ref().map(|connection| &connection.plug) };
    if plug.is_none() {
        set_errno(libc::EBADF);
    }
    plug
}

fn guarded<T>(broken: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        set_errno(libc::EIO);
        broken
    })
}

fn failed(errno: c_int) -> isize {
    set_errno(errno);
    -1
}

fn set_errno(errno: c_int) {
    // SAFETY: libc gives the calling thread's errno, which is there as long as the thread.
    unsafe { *libc::__errno_location() = errno };
}
