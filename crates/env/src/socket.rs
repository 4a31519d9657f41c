//! The options of accepted connections.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// The shortest idle time, in ms, before a peer is asked whether it is there.
const KEEP_IDLE_MS_MIN: u32 = 1000;

/// Sets a connection up as every door needs it: answers are sent at once, and a
/// peer that vanished, or takes nothing for `peer_ms_max`, is noticed (RFC 5482).
///
/// # Errors
/// What the system refuses; the connection can be used all the same.
pub fn prepare_connection(stream: &TcpStream, peer_ms_max: u32) -> io::Result<()> {
    // Answers are written whole: waiting for more would only delay them.
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    let idle_ms = (peer_ms_max / 2).max(KEEP_IDLE_MS_MIN);
    sockopt::set_tcp_keepidle(stream, Duration::from_millis(idle_ms.into()))?;
    // One that stopped reading would hold its place for ever.
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, peer_ms_max)?;
    Ok(())
}
