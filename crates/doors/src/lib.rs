//! What doors share: listeners that let connections in, how many of them an
//! address has, and certificates from files. It speaks no protocol and knows no
//! user.

mod addresses;
mod listener;
mod tls;

pub use addresses::{Addresses, Counted};
pub use listener::{ConnectionMetrics, Listener, WhenFull};
pub use tls::{ClientCertificates, Seen, Tls, TlsError, TlsFiles, TlsMetrics};
