//! What doors share: certificates from files, and how many connections an
//! address has. It speaks no protocol and knows no user.

mod addresses;
mod tls;

pub use addresses::{Addresses, Counted};
pub use tls::{ClientCertificates, Seen, Tls, TlsError, TlsFiles, TlsMetrics};
