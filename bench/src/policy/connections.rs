//! TCP connections that are opened, used for one byte and one back, and closed: both ends on one thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use crate::compare::cost;
use crate::networks::town::Road;

/// Few enough that what is closed fits beside each other, at ports and in tables.
const CONNECTIONS: u32 = 100;

/// A listener along a road.
pub struct Connections<'a> {
    road: &'a Road<'a>,
    listener: TcpListener,
    at: SocketAddrV4,
}

impl<'a> Connections<'a> {
    /// Along this road.
    pub fn along(road: &'a Road<'a>) -> Connections<'a> {
        let listener = road.listen();
        let port = listener.local_addr().expect("it listens").port();
        Connections { road, listener, at: SocketAddrV4::new(road.at, port) }
    }

    /// Nanoseconds a connection.
    pub fn run(&mut self) -> f64 {
        let many = || -> io::Result<f64> {
            let once = |_| self.once();
            let mut done = Ok(());
            let each = cost(CONNECTIONS, || done = (0..CONNECTIONS).try_for_each(once));
            done.map(|()| each)
        };
        self.road.from.enter(many).expect("both ends are ours")
    }

    fn once(&self) -> io::Result<()> {
        let mut byte = [7];
        let mut client = TcpStream::connect_timeout(&self.at.into(), Duration::from_secs(10))?;
        let (mut server, peer) = self.listener.accept()?;
        assert_eq!(peer.ip(), self.road.seen, "another road was taken");
        client.write_all(&byte)?;
        server.read_exact(&mut byte)?;
        server.write_all(&byte)?;
        client.read_exact(&mut byte)?;
        // The one who begins closes first.
        drop(client);
        drop(server);
        Ok(())
    }
}
