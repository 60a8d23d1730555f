//! A server and a client small enough to be started by the hundred, in any namespace, cgroup and user.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use fief_testkit::{Dial, Echo, EchoOptions};

const HELP: &str = "\
fief-peer serve ADDRESS [--pktinfo]        echo over TCP and UDP until killed; says \"ready ADDRESS\", then a line each
fief-peer tcp|udp ADDRESS TEXT [OPTIONS]   send TEXT, print the answer (udp: and a line with its sender)
    --bind ADDRESS  --device NAME  --mark NUMBER  --timeout MILLISECONDS
fief-peer hold ADDRESS --mark 0xHEX        hold a UDP socket with this mark until killed; says \"ready ADDRESS\"
exit status: 0 answered, 1 not (the reason is on standard error), 2 not understood";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["serve", address, options @ ..] => serve(address, options),
        ["hold", address, "--mark", mark] => hold(address, mark),
        [protocol @ ("tcp" | "udp"), address, text, options @ ..] => call(protocol, address, text, options),
        ["--help"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => Err(Failure::Usage("no such command".to_owned())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Network(error)) => {
            eprintln!("fief-peer: {error}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(what)) => {
            eprintln!("fief-peer: {what}\n{HELP}");
            ExitCode::from(2)
        }
    }
}

enum Failure {
    Network(std::io::Error),
    Usage(String),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Network(error)
    }
}

fn serve(address: &str, options: &[&str]) -> Result<(), Failure> {
    if let Some(unknown) = options.iter().find(|option| **option != "--pktinfo") {
        return Err(Failure::Usage(format!("unknown option {unknown}")));
    }
    let options = EchoOptions { pktinfo: !options.is_empty(), verbose: true, ..EchoOptions::default() };
    let echo = Echo::listen(parsed(address)?, options)?;
    println!("ready {}", echo.address());
    loop {
        std::thread::park();
    }
}

fn hold(address: &str, mark: &str) -> Result<(), Failure> {
    let value = u32::from_str_radix(mark.trim_start_matches("0x"), 16);
    let value = value.map_err(|_| Failure::Usage(format!("cannot read {mark:?}")))?;
    let socket = std::net::UdpSocket::bind(parsed::<SocketAddr>(address)?)?;
    fief_testkit::set_mark(&socket, value)?;
    println!("ready {}", socket.local_addr()?);
    loop {
        std::thread::park();
    }
}

fn call(protocol: &str, address: &str, text: &str, options: &[&str]) -> Result<(), Failure> {
    let to: SocketAddr = parsed(address)?;
    let mut dial = Dial::to(to);
    for option in options.chunks(2) {
        let [name, value] = option else {
            return Err(Failure::Usage(format!("{} needs a value", option[0])));
        };
        dial = match *name {
            "--bind" => dial.bind(parsed(value)?),
            "--device" => dial.device(value),
            "--mark" => dial.mark(parsed(value)?),
            "--timeout" => dial.timeout(Duration::from_millis(parsed(value)?)),
            _ => return Err(Failure::Usage(format!("unknown option {name}"))),
        };
    }
    if protocol == "tcp" {
        println!("{}", String::from_utf8_lossy(&dial.tcp(text.as_bytes())?));
    } else {
        let (answer, from) = dial.udp(text.as_bytes())?;
        println!("{}\nfrom {from}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::Usage(format!("cannot read {text:?}")))
}
