//! Whose is a socket that this program makes: `cargo run -p libfief --example tenant -- blue`

use std::net::UdpSocket;

use libfief::{Whose, any_socket, set, tenant};

fn main() -> std::io::Result<()> {
    let name = std::env::args().nth(1).unwrap_or_default();
    // From here on whatever a library makes in this thread is the tenant's; the empty name goes back.
    set(&any_socket()?, Whose::Thread, &name)?;
    println!("{}", tenant(&UdpSocket::bind("[::]:0")?, Whose::Socket)?);
    Ok(())
}
