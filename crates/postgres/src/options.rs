//! The limits and addresses of the PostgreSQL door.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use aquifer_doors::{ClientCertificates, TlsFiles};
use serde::{Deserialize, Serialize};

/// What a client has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostgresSecurity {
    /// Nothing: any user's name is let in.
    #[default]
    None,
    /// Its user, by SCRAM-SHA-256.
    Password,
}

/// Options of the PostgreSQL door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresOptions {
    /// Whether the protocol is served at all.
    pub enabled: bool,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What it asks of its clients.
    pub security: PostgresSecurity,

    /// The server's certificate and those between it and its authority, PEM;
    /// with it, TLS is offered.
    pub tls_certificate_file: Option<PathBuf>,
    /// The certificate's private key, PEM; not to be readable by everybody.
    pub tls_key_file: Option<PathBuf>,
    /// The authorities that clients' certificates are signed by, PEM.
    pub tls_client_ca_file: Option<PathBuf>,
    /// What is asked of clients' certificates.
    pub tls_client_certificates: ClientCertificates,
    /// Whether connections without TLS are refused.
    pub tls_required: bool,
    /// How often the files are looked at for new certificates; in ms.
    pub tls_reload_interval_ms: u64,

    /// A connection has to be logged in, TLS and all, within this; in ms.
    pub login_ms_max: u64,
    /// The longest pause before a login from an address where logins failed; in
    /// ms.
    pub login_delay_ms_max: u64,
    /// Addresses whose failed logins are remembered.
    pub login_addresses_max: usize,

    /// Connections open at a time; more are told so and closed.
    pub connections_max: usize,
    /// Connections of one address at a time.
    pub connections_per_address_max: usize,
    /// A connection that asks for nothing for this long is closed; in ms.
    pub idle_ms_max: u64,
    /// A connection whose peer takes nothing and answers nothing for this long
    /// is cut off; in ms.
    pub peer_ms_max: u32,
    /// The largest message of a client.
    pub message_bytes_max: usize,
    /// A message must arrive within this, from its first byte to its last; in
    /// ms.
    pub message_ms_max: u64,
    /// Bytes of large messages in memory at a time, over all connections.
    pub messages_bytes_max: usize,
    /// Prepared statements of one connection.
    pub statements_max: usize,
    /// Bytes of the text of one connection's prepared statements.
    pub statements_bytes_max: usize,
    /// Portals and cursors of one connection that have rows left; each is a
    /// question under way.
    pub portals_max: usize,
    /// A statement may run for this long where its client sets no shorter
    /// `statement_timeout`; in ms.
    pub statement_ms_max: u64,
    /// The memory that one statement's operators may hold.
    pub statement_memory_bytes_max: u64,
    /// How long a stop waits for statements under way; in ms.
    pub drain_ms_max: u64,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 5433)),
            security: PostgresSecurity::None,
            tls_certificate_file: None,
            tls_key_file: None,
            tls_client_ca_file: None,
            tls_client_certificates: ClientCertificates::None,
            tls_required: false,
            tls_reload_interval_ms: 30_000,
            login_ms_max: 30_000,
            login_delay_ms_max: 2_000,
            login_addresses_max: 10_000,
            connections_max: 512,
            connections_per_address_max: 256,
            idle_ms_max: 86_400_000,
            peer_ms_max: 60_000,
            message_bytes_max: 16 << 20,
            message_ms_max: 60_000,
            messages_bytes_max: 64 << 20,
            statements_max: 1_000,
            statements_bytes_max: 16 << 20,
            portals_max: 4,
            statement_ms_max: 300_000,
            statement_memory_bytes_max: 256 << 20,
            drain_ms_max: 5_000,
        }
    }
}

impl PostgresOptions {
    /// Whether anyone on another machine gets in without a proof.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let shows_certificate =
            self.tls_required && self.tls_client_certificates == ClientCertificates::Required;
        self.enabled
            && !self.listen.ip().is_loopback()
            && self.security == PostgresSecurity::None
            && !shows_certificate
    }

    /// The files for TLS; none where it is not offered.
    pub(crate) fn tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.tls_certificate_file.clone()?,
            key: self.tls_key_file.clone()?,
            client_ca: self.tls_client_ca_file.clone(),
        })
    }

    /// Checks the bounds of every field.
    ///
    /// # Errors
    /// The first field outside its bounds, and the rule.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let at_least = [
            ("tls_reload_interval_ms", self.tls_reload_interval_ms, 10),
            ("login_ms_max", self.login_ms_max, 100),
            ("login_addresses_max", self.login_addresses_max as u64, 1),
            ("connections_max", self.connections_max as u64, 1),
            ("connections_per_address_max", self.connections_per_address_max as u64, 1),
            ("idle_ms_max", self.idle_ms_max, 1_000),
            ("peer_ms_max", self.peer_ms_max.into(), 1_000),
            ("message_bytes_max", self.message_bytes_max as u64, 64 << 10),
            ("message_ms_max", self.message_ms_max, 100),
            ("messages_bytes_max", self.messages_bytes_max as u64, self.message_bytes_max as u64),
            ("statements_max", self.statements_max as u64, 1),
            ("statements_bytes_max", self.statements_bytes_max as u64, 64 << 10),
            ("portals_max", self.portals_max as u64, 1),
            ("statement_ms_max", self.statement_ms_max, 1),
            ("statement_memory_bytes_max", self.statement_memory_bytes_max, 1 << 20),
        ];
        for (field, value, min) in at_least {
            if value < min {
                return Err((field, format!("is {value}, it must be at least {min}")));
            }
        }
        if self.message_bytes_max > i32::MAX as usize {
            return Err(("message_bytes_max", "a message has at most 2 GiB".to_owned()));
        }
        match (&self.tls_certificate_file, &self.tls_key_file) {
            (Some(_), None) => {
                return Err(("tls_key_file", "is needed beside the certificate".to_owned()));
            }
            (None, Some(_)) => {
                return Err(("tls_certificate_file", "is needed beside the key".to_owned()));
            }
            (None, None) if self.tls_required => {
                return Err(("tls_certificate_file", "is needed, TLS is required".to_owned()));
            }
            _ => {}
        }
        let asks = self.tls_client_certificates != ClientCertificates::None;
        if asks && self.tls_client_ca_file.is_none() {
            let why = "is needed to check clients' certificates".to_owned();
            return Err(("tls_client_ca_file", why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_asks_for_no_proof_is_exposed() {
        let check = |text: &str, is_exposed| {
            let options: PostgresOptions = serde_json::from_str(text).unwrap();
            assert_eq!(options.is_exposed(), is_exposed, "{text}");
        };
        check("{}", false);
        check(r#"{"listen": "0.0.0.0:5433"}"#, true);
        check(r#"{"listen": "0.0.0.0:5433", "enabled": false}"#, false);
        check(r#"{"listen": "0.0.0.0:5433", "security": "password"}"#, false);
        let certified = r#""listen": "0.0.0.0:5433", "tls_client_certificates": "required""#;
        check(&format!("{{{certified}}}"), true);
        check(&format!("{{{certified}, \"tls_required\": true}}"), false);
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let check = |text: &str, expected: Option<&str>| {
            let options: PostgresOptions = serde_json::from_str(text).unwrap();
            assert_eq!(options.validate().err().map(|(field, _)| field), expected, "{text}");
        };
        check("{}", None);
        check(r#"{"portals_max": 0}"#, Some("portals_max"));
        check(r#"{"messages_bytes_max": 1}"#, Some("messages_bytes_max"));
        check(r#"{"tls_required": true}"#, Some("tls_certificate_file"));
        check(r#"{"tls_key_file": "k"}"#, Some("tls_certificate_file"));
        check(r#"{"tls_certificate_file": "c"}"#, Some("tls_key_file"));
        check(r#"{"tls_client_certificates": "required"}"#, Some("tls_client_ca_file"));
    }
}
