//! The limits and addresses of the Flight door.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use aquifer_doors::{ClientCertificates, TlsFiles};
use serde::{Deserialize, Serialize};

/// What a client has to prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlightSecurity {
    /// Nothing: anybody is let in.
    #[default]
    None,
    /// Its user, by name and password; it is given a token for what follows.
    Password,
}

/// Options of the Flight door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlightOptions {
    /// Whether Flight SQL is served at all.
    pub enabled: bool,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What it asks of its clients.
    pub security: FlightSecurity,
    /// Whether passwords are taken from other machines without TLS, where
    /// anybody on the way can read them.
    pub password_without_tls: bool,

    /// The server's certificate and those between it and its authority, PEM;
    /// with it, TLS is all that is spoken.
    pub tls_certificate_file: Option<PathBuf>,
    /// The certificate's private key, PEM; not to be readable by everybody.
    pub tls_key_file: Option<PathBuf>,
    /// The authorities that clients' certificates are signed by, PEM.
    pub tls_client_ca_file: Option<PathBuf>,
    /// What is asked of clients' certificates.
    pub tls_client_certificates: ClientCertificates,
    /// How often the files are looked at for new certificates; in ms.
    pub tls_reload_interval_ms: u64,

    /// A connection has to make its first call that is let in within this; in
    /// ms.
    pub login_ms_max: u64,
    /// The longest pause before a login from an address where logins failed; in
    /// ms.
    pub login_delay_ms_max: u64,
    /// Addresses whose failed logins are remembered.
    pub login_addresses_max: usize,
    /// Tokens that are valid at a time; a new one takes the place of the one
    /// that was used least recently.
    pub sessions_max: usize,
    /// A token that is not used for this long is over; in ms.
    pub session_idle_ms_max: u64,
    /// A token is over after this, used or not; in ms.
    pub session_ms_max: u64,

    /// Connections open at a time; more are closed at once.
    pub connections_max: usize,
    /// Connections of one address at a time.
    pub connections_per_address_max: usize,
    /// A connection that makes no call for this long is closed; in ms.
    pub idle_ms_max: u64,
    /// A connection whose peer answers nothing for this long is cut off; in ms.
    pub peer_ms_max: u32,
    /// Calls under way at a time, over all connections; more are refused.
    pub calls_max: usize,
    /// Calls under way at a time on one connection; more wait.
    pub calls_per_connection_max: u32,
    /// The largest message of a client.
    pub message_bytes_max: usize,
    /// What a call sends must have arrived within this; in ms.
    pub message_ms_max: u64,
    /// Bytes of calls that are on their way in at a time, over all connections.
    pub messages_bytes_max: usize,
    /// The largest message that is sent, which holds a batch of rows: a single
    /// row that is larger ends its answer.
    pub batch_bytes_max: usize,

    /// Prepared statements at a time.
    pub statements_max: usize,
    /// Prepared statements of one user at a time, or of one address where users
    /// are not asked for.
    pub statements_per_client_max: usize,
    /// Bytes of the text and values of all prepared statements.
    pub statements_bytes_max: usize,
    /// A prepared statement that is not used for this long is forgotten; in ms.
    pub statement_idle_ms_max: u64,
    /// A statement may run for this long where its client sets no shorter time;
    /// in ms.
    pub statement_ms_max: u64,
    /// The memory that one statement's operators may hold.
    pub statement_memory_bytes_max: u64,
    /// How long a stop waits for calls under way; in ms.
    pub drain_ms_max: u64,
}

impl Default for FlightOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8815)),
            security: FlightSecurity::None,
            password_without_tls: false,
            tls_certificate_file: None,
            tls_key_file: None,
            tls_client_ca_file: None,
            tls_client_certificates: ClientCertificates::None,
            tls_reload_interval_ms: 30_000,
            login_ms_max: 30_000,
            login_delay_ms_max: 2_000,
            login_addresses_max: 10_000,
            sessions_max: 10_000,
            session_idle_ms_max: 3_600_000,
            session_ms_max: 86_400_000,
            connections_max: 512,
            connections_per_address_max: 256,
            idle_ms_max: 3_600_000,
            peer_ms_max: 60_000,
            calls_max: 256,
            calls_per_connection_max: 64,
            message_bytes_max: 4 << 20,
            message_ms_max: 60_000,
            messages_bytes_max: 64 << 20,
            batch_bytes_max: 64 << 20,
            statements_max: 10_000,
            statements_per_client_max: 1_000,
            statements_bytes_max: 64 << 20,
            statement_idle_ms_max: 3_600_000,
            statement_ms_max: 300_000,
            statement_memory_bytes_max: 256 << 20,
            drain_ms_max: 5_000,
        }
    }
}

impl FlightOptions {
    /// Whether anyone on another machine gets in without a proof.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let shows_certificate = self.tls_client_certificates == ClientCertificates::Required;
        self.enabled
            && !self.listen.ip().is_loopback()
            && self.security == FlightSecurity::None
            && !shows_certificate
    }

    /// The files for TLS; none where it is not spoken.
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
            ("sessions_max", self.sessions_max as u64, 1),
            ("session_idle_ms_max", self.session_idle_ms_max, 100),
            ("session_ms_max", self.session_ms_max, 100),
            ("connections_max", self.connections_max as u64, 1),
            ("connections_per_address_max", self.connections_per_address_max as u64, 1),
            ("idle_ms_max", self.idle_ms_max, 1_000),
            ("peer_ms_max", self.peer_ms_max.into(), 1_000),
            ("calls_max", self.calls_max as u64, 1),
            ("calls_per_connection_max", self.calls_per_connection_max.into(), 1),
            ("message_bytes_max", self.message_bytes_max as u64, 64 << 10),
            ("message_ms_max", self.message_ms_max, 100),
            ("messages_bytes_max", self.messages_bytes_max as u64, self.message_bytes_max as u64),
            ("batch_bytes_max", self.batch_bytes_max as u64, 1 << 20),
            ("statements_max", self.statements_max as u64, 1),
            ("statements_per_client_max", self.statements_per_client_max as u64, 1),
            ("statements_bytes_max", self.statements_bytes_max as u64, 64 << 10),
            ("statement_idle_ms_max", self.statement_idle_ms_max, 100),
            ("statement_ms_max", self.statement_ms_max, 1),
            ("statement_memory_bytes_max", self.statement_memory_bytes_max, 1 << 20),
        ];
        for (field, value, min) in at_least {
            if value < min {
                return Err((field, format!("is {value}, it must be at least {min}")));
            }
        }
        for (field, bytes) in [
            ("message_bytes_max", self.message_bytes_max),
            ("batch_bytes_max", self.batch_bytes_max),
        ] {
            if bytes > 1 << 30 {
                return Err((field, "a message has at most 1 GiB".to_owned()));
            }
        }
        self.validate_tls()
    }

    fn validate_tls(&self) -> Result<(), (&'static str, String)> {
        let is_encrypted = match (&self.tls_certificate_file, &self.tls_key_file) {
            (Some(_), Some(_)) => true,
            (None, None) => false,
            (Some(_), None) => {
                return Err(("tls_key_file", "is needed beside the certificate".to_owned()));
            }
            (None, Some(_)) => {
                return Err(("tls_certificate_file", "is needed beside the key".to_owned()));
            }
        };
        if self.tls_client_certificates != ClientCertificates::None {
            if !is_encrypted {
                let why = "is needed where clients show certificates".to_owned();
                return Err(("tls_certificate_file", why));
            }
            if self.tls_client_ca_file.is_none() {
                let why = "is needed to check clients' certificates".to_owned();
                return Err(("tls_client_ca_file", why));
            }
        }
        let shows_passwords = self.enabled
            && self.security == FlightSecurity::Password
            && !self.listen.ip().is_loopback()
            && !is_encrypted
            && !self.password_without_tls;
        if shows_passwords {
            let why = "is needed: passwords would go over the network as they are (or say \
                       flight.password_without_tls)";
            return Err(("tls_certificate_file", why.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: &str = r#""listen": "0.0.0.0:8815""#;
    const CERTIFIED: &str = r#""tls_certificate_file": "c", "tls_key_file": "k",
        "tls_client_certificates": "required", "tls_client_ca_file": "a""#;

    #[test]
    fn only_what_asks_for_no_proof_is_exposed() {
        let check = |text: &str, is_exposed| {
            let options: FlightOptions = serde_json::from_str(&format!("{{{text}}}")).unwrap();
            assert_eq!(options.is_exposed(), is_exposed, "{text}");
        };
        check("", false);
        check(OUTSIDE, true);
        check(&format!(r#"{OUTSIDE}, "enabled": false"#), false);
        check(&format!(r#"{OUTSIDE}, "security": "password""#), false);
        check(&format!("{OUTSIDE}, {CERTIFIED}"), false);
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let check = |text: &str, expected: Option<&str>| {
            let options: FlightOptions = serde_json::from_str(&format!("{{{text}}}")).unwrap();
            assert_eq!(options.validate().err().map(|(field, _)| field), expected, "{text}");
        };
        check("", None);
        check(CERTIFIED, None);
        check(r#""calls_max": 0"#, Some("calls_max"));
        check(r#""messages_bytes_max": 1"#, Some("messages_bytes_max"));
        check(r#""batch_bytes_max": 2147483648"#, Some("batch_bytes_max"));
        check(r#""tls_key_file": "k""#, Some("tls_certificate_file"));
        check(r#""tls_certificate_file": "c""#, Some("tls_key_file"));
        check(r#""tls_client_certificates": "required""#, Some("tls_certificate_file"));
        let asked = r#""security": "password""#;
        check(asked, None);
        check(&format!("{OUTSIDE}, {asked}"), Some("tls_certificate_file"));
        check(&format!("{OUTSIDE}, {asked}, {CERTIFIED}"), None);
        check(&format!(r#"{OUTSIDE}, {asked}, "password_without_tls": true"#), None);
    }
}
