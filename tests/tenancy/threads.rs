//! Many threads, each in another tenant, making sockets at once.

use std::net::UdpSocket;
use std::sync::mpsc;

use fief_testkit::mark;
use libfief::{Whose, any_socket, set, tenant};

use crate::python;
use crate::room::Room;

const TENANTS: usize = 64;

/// Sockets a thread makes.
fn sockets() -> usize {
    if std::env::var_os("FIEF_SOAK").is_some() { 100_000usize.div_ceil(64) } else { 200 }
}

#[test]
fn sixty_four_threads_in_other_tenants_never_mix() {
    let Some(room) = Room::without_clients("threads", TENANTS) else { return };
    let marks: Vec<u32> = (0..TENANTS).map(|i| room.mark(i)).collect();
    let made: usize = room.inside(room.host(), || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..64)
                .map(|n| {
                    let (room, marks) = (&room, &marks);
                    let run = move || {
                        let i = n % TENANTS;
                        set(&any_socket().unwrap(), Whose::Thread, &room.street.name(i)).unwrap();
                        for _ in 0..sockets() {
                            let socket = UdpSocket::bind("[::]:0").unwrap();
                            assert_eq!(mark(&socket).unwrap(), marks[i]);
                        }
                        sockets()
                    };
                    scope.spawn(run)
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        })
    });
    println!("{made} sockets of 64 threads");
    assert_eq!(made, 64 * sockets());
}

#[test]
fn a_pool_whose_threads_switch_with_each_request_never_mixes() {
    let Some(room) = Room::without_clients("pool", TENANTS) else { return };
    let (requests, work) = mpsc::channel::<usize>();
    let work = std::sync::Mutex::new(work);
    let marks: Vec<u32> = (0..TENANTS).map(|i| room.mark(i)).collect();
    for i in 0..64 * sockets() {
        requests.send(i * 7 % (TENANTS + 1)).unwrap();
    }
    drop(requests);
    room.inside(room.host(), || {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let any = any_socket().unwrap();
                    loop {
                        let next = work.lock().unwrap().recv();
                        let Ok(i) = next else { return };
                        // One request in sixty-five is the host's own.
                        let name = if i < TENANTS { room.street.name(i) } else { String::new() };
                        set(&any, Whose::Thread, &name).unwrap();
                        let socket = UdpSocket::bind("[::]:0").unwrap();
                        assert_eq!(mark(&socket).unwrap(), marks.get(i).copied().unwrap_or(0));
                        assert_eq!(tenant(&socket, Whose::Socket).unwrap(), name);
                    }
                });
            }
        });
    });
}

/// One thread whose tasks take turns, and a pool behind it: each says whose sockets it makes before it makes them.
#[test]
fn tasks_of_asyncio_and_its_pool_never_mix() {
    let Some(room) = Room::without_clients("asyncio", TENANTS) else { return };
    let script = format!(
        "import asyncio, random\n\
         from concurrent.futures import ThreadPoolExecutor\n\
         def make(any, name):\n\
         \x20put(any, THREAD, name)\n\
         \x20s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
         \x20put(any, THREAD, '')\n\
         \x20return s\n\
         async def task(i, any, pool):\n\
         \x20name, done = f't{{i}}', 0\n\
         \x20loop = asyncio.get_running_loop()\n\
         \x20for n in range({each}):\n\
         \x20\x20s = await loop.run_in_executor(pool, make, any, name) if n % 2 else make(any, name)\n\
         \x20\x20await asyncio.sleep(0)\n\
         \x20\x20assert get(s, SOCKET) == name, (get(s, SOCKET), name)\n\
         \x20\x20s.close(); done += 1\n\
         \x20return done\n\
         async def main():\n\
         \x20with socket.socket() as any, ThreadPoolExecutor(8) as pool:\n\
         \x20\x20print(sum(await asyncio.gather(*[task(i, any, pool) for i in range({TENANTS})])))\n\
         asyncio.run(main())\n",
        each = sockets(),
    );
    let output = python(&room, &script).timeout(std::time::Duration::from_secs(300)).run().ok();
    assert_eq!(output.stdout, format!("{}\n", TENANTS * sockets()));
}
