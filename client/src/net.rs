//! Socket options of the tunnel's TCP connection. All of them are improvements: a platform without one goes without.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// The kernel finds a dead peer by itself only after this long; the heartbeat is faster, this is for idle NATs.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Sets what a tunnel needs: no delay for small writes, and little unsent data in the kernel, so that a token does
/// not wait behind bulk that was handed over before it.
pub(crate) fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    _ = socket.set_tcp_nodelay(true);
    _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        /// Bytes. Without small yamux frames this alone would make things worse.
        const UNSENT: u32 = 16 * 1024;
        _ = socket.set_tcp_notsent_lowat(UNSENT);
    }
}
