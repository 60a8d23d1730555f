//! A server that says everything back, over TCP, UDP and SCTP, and remembers whom it spoke to.

use std::io::{self, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{
    Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, bind, listen, recvmsg, sendmsg,
    setsockopt, sockopt,
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::socket::{mark, sctp};

/// Bytes that wait to be answered.
const QUEUE: usize = 16 << 20;

/// What differs from a plain server.
#[derive(Debug, Clone, Copy, Default)]
pub struct EchoOptions {
    /// Answer datagrams from the address they were sent to, as careful wildcard servers do (`IP_PKTINFO`, ip(7)).
    pub pktinfo: bool,
    /// Print a line for each connection and datagram.
    pub verbose: bool,
    /// Listen for associations of SCTP too, at the same port.
    pub sctp: bool,
}

/// A running server. It ends on drop.
///
/// It listens in the namespace of the thread that started it, so in tests: `ns.enter(|| Echo::listen(...))`.
pub struct Echo {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Closed, it ends the threads.
    ends: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    ended: PipeReader,
    heard: Mutex<Vec<String>>,
    options: EchoOptions,
}

impl Echo {
    /// Listens on `address`, TCP and UDP and what else the options say; port 0 chooses one. `[::]` serves IPv4 as well.
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
        // What was announced may turn out to be damaged (recvmsg(2) then waits on).
        udp.set_read_timeout(Some(Duration::from_millis(20)))?;
        let (ended, ends) = io::pipe()?;
        let shared = Arc::new(Shared { ended, heard: Mutex::default(), options });
        let (streams, datagrams) = (shared.clone(), shared.clone());
        let mut threads = vec![
            std::thread::spawn(move || streams.serve("tcp", &tcp)),
            std::thread::spawn(move || datagrams.serve_udp(&udp)),
        ];
        if options.sctp {
            let (associations, socket) = (shared.clone(), sctp(&address)?);
            bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
            listen(&socket, Backlog::MAXCONN)?;
            let listener = TcpListener::from(socket);
            listener.set_nonblocking(true)?;
            threads.push(std::thread::spawn(move || associations.serve("sctp", &listener)));
        }
        Ok(Echo { address, shared, ends: Some(ends), threads })
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
        drop(self.ends.take());
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, protocol: &'static str, listener: &TcpListener) {
        while self.waits(listener) {
            // A connection may have gone before it is accepted.
            if let Ok((stream, peer)) = listener.accept() {
                let shared = self.clone();
                std::thread::spawn(move || drop(shared.converse(protocol, stream, peer)));
            }
        }
    }

    fn converse(&self, protocol: &str, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let (peer, local, mark) = (plain(peer), plain(stream.local_addr()?), mark(&stream)?);
        self.note(format!("{protocol} from {peer} to {local} mark {mark:#x}"));
        stream.set_nonblocking(false)?;
        if protocol == "tcp" {
            stream.set_nodelay(true)?;
        }
        let mut buffer = [0; 65_536];
        while self.waits(&stream) {
            match stream.read(&mut buffer)? {
                0 => break,
                length => stream.write_all(&buffer[..length])?,
            }
        }
        Ok(())
    }

    fn serve_udp(&self, socket: &UdpSocket) {
        while self.waits(socket) {
            // Errors are ICMP answers to what we sent, which end no server.
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

    /// Until there is something to read, or an error to hear of. False when the server ends.
    fn waits(&self, socket: &impl AsFd) -> bool {
        loop {
            let mut both = [PollFd::new(socket, PollFlags::IN), PollFd::new(&self.ended, PollFlags::IN)];
            let polled = poll(&mut both, None);
            let [socket, ended] = both.map(|fd| !fd.revents().is_empty());
            match polled {
                Ok(_) if ended => return false,
                Ok(_) if socket => return true,
                Ok(_) | Err(rustix::io::Errno::INTR) => (),
                Err(_) => return false,
            }
        }
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
