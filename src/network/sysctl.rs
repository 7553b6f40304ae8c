//! The kernel's switches below /proc/sys, in the network namespace of the calling thread.

use std::{fs, io, path::Path};

/// Lets the kernel forward packets between links.
pub fn enable_forwarding(ipv6: bool) -> io::Result<()> {
    switch_on("net/ipv4/ip_forward")?;
    if ipv6 && fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").is_ok_and(|value| value.trim() == "0") {
        keep_router_advertisements();
        switch_on("net/ipv6/conf/all/forwarding")?;
    }
    Ok(())
}

/// A router ignores other routers' advertisements, and with them the host's own default route, unless told
/// otherwise link by link.
fn keep_router_advertisements() {
    let Ok(links) = fs::read_dir("/proc/sys/net/ipv6/conf") else { return };
    for link in links.flatten() {
        let switch = link.path().join("accept_ra");
        if link.file_name() != "all" && fs::read_to_string(&switch).is_ok_and(|value| value.trim() == "1") {
            let _ = fs::write(switch, "2");
        }
    }
}

/// Lets a link use the address that the kernel itself gives it at once, not after the up to two seconds in which it
/// asks for duplicates: until then the link asks for no neighbour, and what is published stays out of reach. To be
/// called before the link has a carrier. Addresses that we give are trusted one by one (`Links::add_address`).
pub fn trust_addresses(link: &str) -> io::Result<()> {
    write_if_there(&format!("net/ipv6/conf/{link}/accept_dad"), "0")
}

/// Sets a switch; one that this kernel does not have is passed over.
pub fn write_if_there(name: &str, value: &str) -> io::Result<()> {
    match fs::write(Path::new("/proc/sys").join(name), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| explain(name, &error)),
    }
}

/// Written only where it is off: in a container without the right to write it may be on already.
fn switch_on(name: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys").join(name);
    if fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
        return Ok(());
    }
    fs::write(&path, "1").map_err(|error| explain(name, &error))
}

fn explain(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("setting {}: {error}", name.replace('/', ".")))
}
