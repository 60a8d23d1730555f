//! Switches under /proc/sys (sysctl(8)) of the current network namespace.

use crate::HostError;

/// Reads one, without the newline. `name` has dots, as `net.ipv4.fwmark_reflect`; a device name in it is given
/// with its dots as slashes.
pub fn read(name: &str) -> Result<String, HostError> {
    let text =
        std::fs::read_to_string(path(name)).map_err(|e| HostError::io(format!("read sysctl {name}"), e))?;
    Ok(text.trim_end().to_owned())
}

/// Writes one.
pub fn write(name: &str, value: &str) -> Result<(), HostError> {
    std::fs::write(path(name), value).map_err(|e| HostError::io(format!("set sysctl {name} to {value}"), e))
}

/// The rp_filter of a device, or of `all`; the larger of both is in force (Documentation/networking/ip-sysctl.rst).
pub fn reverse_path_filter(device: &str) -> u8 {
    let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn path(name: &str) -> String {
    // /proc/sys is a view of the reader's own namespace; see proc_sys(5).
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    format!("/proc/sys/{}", name.chars().map(swap).collect::<String>())
}
