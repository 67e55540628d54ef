//! Whether the address is free: found out before anything else is made for it.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use helve_domain::error::{Error, Result};

/// Refuses an address that cannot be listened on. `choose`: how to choose another one.
///
/// # Errors
/// `Internal` with who has it, where that can be seen.
pub(super) fn check(address: SocketAddr, choose: &str) -> Result<()> {
    let Err(e) = TcpListener::bind(address) else { return Ok(()) };
    let why = match e.kind() {
        ErrorKind::AddrInUse => {
            let who = holder(address.port()).unwrap_or_else(|| "another program".to_owned());
            format!("{who} listens there")
        }
        ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => e.to_string(),
    };
    Err(Error::Internal(format!("cannot listen on {address}: {why}; choose another one with {choose}")))
}

/// The process that listens on a port, as far as this one may see it. Only Linux shows it.
fn holder(port: u16) -> Option<String> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(|line| listener(line, port)).collect::<Vec<_>>())
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut processes = processes.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let id = processes.find(|id| {
        let files = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
        links.any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
    })?;
    let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    Some(format!("`{}` (process {id})", name.trim()))
}

/// The socket of a line of the kernel's table, if it listens on the port: as the files of processes link to it.
fn listener(line: &str, port: u16) -> Option<String> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (_, local) = words.next()?.rsplit_once(':')?;
    let (_remote, state) = (words.next()?, words.next()?);
    let inode = words.nth(5)?;
    let is_it = u16::from_str_radix(local, 16).is_ok_and(|local| local == port) && state == "0A";
    is_it.then(|| format!("socket:[{inode}]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_port_is_named_with_how_to_choose_another() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let text = check(address, "--port").unwrap_err().to_string();
        assert!(text.contains(&address.to_string()) && text.ends_with("choose another one with --port"), "{text}");
        if cfg!(target_os = "linux") {
            assert!(text.contains(&format!("(process {})", std::process::id())), "{text}");
        }
        drop(taken);
        check(address, "--port").unwrap();
        let elsewhere = check("192.0.2.1:7733".parse().unwrap(), "--listen").unwrap_err().to_string();
        assert!(elsewhere.contains("no such address"), "{elsewhere}");
    }

    #[test]
    fn a_line_of_the_kernel_is_read() {
        let line = "   0: 0100007F:1E35 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 21744 1 0 100 0 0 10 0";
        assert_eq!(listener(line, 7733).as_deref(), Some("socket:[21744]"));
        assert_eq!(listener(line, 7734), None);
        assert_eq!(listener(&line.replace(" 0A ", " 01 "), 7733), None, "a connection from that port");
    }
}
