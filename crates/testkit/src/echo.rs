//! A server that says everything back, over TCP and UDP, and remembers whom it spoke to.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};

use crate::socket::mark;

/// Bytes that wait to be answered.
const QUEUE: usize = 16 << 20;

/// How often a thread looks whether it should end.
const TICK: Duration = Duration::from_millis(20);

/// What differs from a plain server.
#[derive(Debug, Clone, Copy, Default)]
pub struct EchoOptions {
    /// Answer datagrams from the address they were sent to, as careful wildcard servers do (`IP_PKTINFO`, ip(7)).
    pub pktinfo: bool,
    /// Print a line for each connection and datagram.
    pub verbose: bool,
}

/// A running server. It ends on drop.
///
/// It listens in the namespace of the thread that started it, so in tests: `ns.enter(|| Echo::listen(...))`.
pub struct Echo {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    end: AtomicBool,
    heard: Mutex<Vec<String>>,
    options: EchoOptions,
}

impl Echo {
    /// Listens on `address`, TCP and UDP; port 0 chooses one. `[::]` serves IPv4 as well.
    pub fn listen(address: SocketAddr, options: EchoOptions) -> io::Result<Echo> {
        let tcp = TcpListener::bind(address)?;
        let address = tcp.local_addr()?;
        let udp = UdpSocket::bind(address)?;
        // Whoever sends makes up for what the scheduler kept him from, and all of it is to be answered. Without privileges
        // it stays as it is.
        let _ = setsockopt(&udp, sockopt::RcvBufForce, &QUEUE);
        if options.pktinfo {
            setsockopt(&udp, sockopt::Ipv4PacketInfo, &true)?;
            if address.is_ipv6() {
                setsockopt(&udp, sockopt::Ipv6RecvPacketInfo, &true)?;
            }
        }
        tcp.set_nonblocking(true)?;
        udp.set_read_timeout(Some(TICK))?;
        let shared = Arc::new(Shared { end: AtomicBool::new(false), heard: Mutex::default(), options });
        let (streams, datagrams) = (shared.clone(), shared.clone());
        let threads = vec![
            std::thread::spawn(move || streams.serve_tcp(&tcp)),
            std::thread::spawn(move || datagrams.serve_udp(&udp)),
        ];
        Ok(Echo { address, shared, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One line for each connection and datagram: `tcp from PEER to LOCAL mark 0x0`, `udp from PEER`, and with
    /// [`EchoOptions::pktinfo`] `udp from PEER to LOCAL-IP`.
    pub fn heard(&self) -> Vec<String> {
        self.shared.heard.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn serve_tcp(self: &Arc<Self>, listener: &TcpListener) {
        while !self.end.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let shared = self.clone();
                    std::thread::spawn(move || drop(shared.converse(stream, peer)));
                }
                // Nothing there, or a connection that went before it was accepted.
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn converse(&self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let (peer, local, mark) = (plain(peer), plain(stream.local_addr()?), mark(&stream)?);
        self.note(format!("tcp from {peer} to {local} mark {mark:#x}"));
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        let mut buffer = [0; 65_536];
        while !self.end.load(Ordering::Relaxed) {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => stream.write_all(&buffer[..length])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn serve_udp(&self, socket: &UdpSocket) {
        while !self.end.load(Ordering::Relaxed) {
            // Errors are time-outs, or ICMP answers to what we sent; neither ends a server.
            let served =
                if self.options.pktinfo { self.answer_carefully(socket) } else { self.answer(socket) };
            drop(served);
        }
    }

    fn answer(&self, socket: &UdpSocket) -> io::Result<()> {
        let mut buffer = [0; 65_536];
        let (length, peer) = socket.recv_from(&mut buffer)?;
        self.note(format!("udp from {}", plain(peer)));
        socket.send_to(&buffer[..length], peer).map(drop)
    }

    /// Sends the answer with the address that was called as its source, and no device.
    fn answer_carefully(&self, socket: &UdpSocket) -> io::Result<()> {
        let mut buffer = [0; 65_536];
        let mut space = nix::cmsg_space!([u8; 128]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let fd = socket.as_raw_fd();
        let received = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), MsgFlags::empty())?;
        let (length, peer) = (received.bytes, received.address);
        let mut called = None;
        let mut packet4 = None;
        let mut packet6 = None;
        for message in received.cmsgs()? {
            match message {
                ControlMessageOwned::Ipv4PacketInfo(mut info) => {
                    called = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                    info.ipi_ifindex = 0;
                    info.ipi_spec_dst = info.ipi_addr;
                    packet4 = Some(info);
                }
                ControlMessageOwned::Ipv6PacketInfo(mut info) => {
                    let address = std::net::Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    called = called.or(Some(address.to_canonical()));
                    // A link-local source means nothing without its device.
                    if !address.is_unicast_link_local() {
                        info.ipi6_ifindex = 0;
                    }
                    packet6 = Some(info);
                }
                _ => (),
            }
        }
        let peer = peer.ok_or(io::ErrorKind::InvalidData)?;
        let called = called.map(|ip| ip.to_string()).unwrap_or_default();
        self.note(format!("udp from {} to {called}", plain(inet(&peer).ok_or(io::ErrorKind::InvalidData)?)));
        let source = match (&packet4, &packet6) {
            (_, Some(info)) => Some(ControlMessage::Ipv6PacketInfo(info)),
            (Some(info), None) => Some(ControlMessage::Ipv4PacketInfo(info)),
            (None, None) => None,
        };
        sendmsg(fd, &[IoSlice::new(&buffer[..length])], source.as_slice(), MsgFlags::empty(), Some(&peer))?;
        Ok(())
    }

    fn note(&self, line: String) {
        if self.options.verbose {
            println!("{line}");
        }
        self.heard.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(line);
    }
}

/// An IPv4 peer of an IPv6 socket as what it is.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn inet(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
}
