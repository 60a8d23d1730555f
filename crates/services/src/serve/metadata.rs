//! The metadata service of one namespace: one listener, told apart by who connects.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Network, PAUSE};
use crate::metadata::{Caller, answer};
use crate::teeth::is_off;

/// How long a client has for its request, and then for taking the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The least that hyper can do with.
const BUFFER: usize = 8192;
const HEADERS: usize = 32;

/// The networks of one namespace.
#[derive(Default)]
pub(crate) struct Site {
    networks: RefCell<Vec<Weak<Network>>>,
    listener: RefCell<JoinSet<()>>,
}

impl Site {
    /// Serves this network too.
    pub(crate) fn join(&self, network: &Rc<Network>) {
        let mut networks = self.networks.borrow_mut();
        if !networks.iter().any(|known| known.as_ptr() == Rc::as_ptr(network)) {
            networks.push(Rc::downgrade(network));
        }
    }

    /// Serves this network no more; true when it was the last.
    pub(crate) fn leave(&self, network: &Rc<Network>) -> bool {
        let mut networks = self.networks.borrow_mut();
        networks.retain(|known| known.as_ptr() != Rc::as_ptr(network) && known.strong_count() > 0);
        networks.is_empty()
    }

    /// Serves from this listener instead of the one there was.
    pub(crate) fn listen(self: &Rc<Site>, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let mut tasks = JoinSet::new();
        // Weak, or the task would keep alive what ends it.
        tasks.spawn_local(serve(Rc::downgrade(self), listener));
        self.listener.replace(tasks);
        Ok(())
    }

    /// Ends; the task lets go of the listener when it is waited for.
    pub(crate) fn stop(&self) -> JoinSet<()> {
        self.listener.take()
    }

    fn network_of(&self, address: Ipv4Addr) -> Option<Rc<Network>> {
        let networks = self.networks.borrow();
        let is_its =
            |network: &Rc<Network>| network.config().subnet.contains(&address) || is_off("net-metadata");
        networks.iter().filter_map(Weak::upgrade).find(is_its)
    }
}

async fn serve(site: Weak<Site>, listener: TcpListener) {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accepting a metadata client");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(site) = site.upgrade() else { return };
        let IpAddr::V4(address) = client.ip() else { continue };
        // Of no network: there is nobody to say so to.
        let Some(network) = site.network_of(address) else { continue };
        let Some(place) = network.metadata_connections.take(client.ip()) else {
            network.count(|counters| counters.metadata_dropped += 1);
            continue;
        };
        let asked = Rc::clone(&network);
        network.begin(async move {
            converse(asked, address, stream).await;
            drop(place);
        });
    }
}

/// One request, one answer.
async fn converse(network: Rc<Network>, address: Ipv4Addr, stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&network, address, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(BUFFER)
        .max_headers(HEADERS)
        .keep_alive(false);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    match timeout(PATIENCE * 2, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::trace!(%address, %error, "a metadata connection"),
        Err(_) => tracing::trace!(%address, "a metadata connection took too long"),
    }
}

fn respond(network: &Network, address: Ipv4Addr, request: &Request<Incoming>) -> Response<String> {
    let config = network.config();
    let anybody = config.endpoints.first().filter(|_| is_off("net-caller"));
    let endpoint = network.endpoint(&config, address).or(anybody);
    let caller = endpoint.map(|endpoint| Caller { network: &config, endpoint, address });
    if caller.is_some() {
        network.count(|counters| counters.metadata_requests += 1);
    }
    answer(caller, request.method(), request.uri().path(), request.headers())
}
