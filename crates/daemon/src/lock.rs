//! One fiefd a network namespace: an abstract Unix socket, which the kernel keeps per network namespace and lets go
//! when its process dies (unix(7)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

const NAME: &[u8] = b"fief/daemon";

/// The right to be the daemon of this network namespace, while it lives.
pub struct Lock {
    _listener: UnixListener,
}

/// Takes the lock, or says who has it.
pub fn take() -> anyhow::Result<Lock> {
    let address = SocketAddr::from_abstract_name(NAME)?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(Lock { _listener: listener }),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let first = UnixStream::connect_addr(&address).and_then(|s| fief_host::peer::process(&s));
            match first {
                Ok(pid) => anyhow::bail!(
                    "another fiefd (process {pid}) serves this network namespace; stop it first, or start this one in \
                     a network namespace of its own"
                ),
                Err(_) => anyhow::bail!("another fiefd serves this network namespace; stop it first"),
            }
        }
        Err(error) => Err(error.into()),
    }
}
