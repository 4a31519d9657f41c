//! The limits and addresses of the Kafka door.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use aquifer_doors::{ClientCertificates, TlsFiles};
use aquifer_types::PARTITIONS_MAX;
use aquifer_users::{Mechanism, ScramHash};
use serde::{Deserialize, Serialize};

/// What a listener asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenerSecurity {
    /// Nothing: clear text, no user.
    #[default]
    Plaintext,
    /// A user proved by SASL, in clear text.
    SaslPlaintext,
    /// TLS, no user.
    Tls,
    /// A user proved by SASL, under TLS.
    SaslTls,
}

impl ListenerSecurity {
    /// Whether the connection is encrypted.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::SaslTls)
    }

    /// As Kafka names it.
    pub(crate) const fn kafka_name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::Tls => "SSL",
            Self::SaslTls => "SASL_SSL",
        }
    }

    /// Whether a user has to be proved before anything else.
    #[must_use]
    pub const fn is_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslTls)
    }
}

/// One address on which Kafka clients are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerOptions {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `host:port` under which its clients reach it; absent, where it listens.
    #[serde(default)]
    pub advertised: Option<String>,
    /// What it asks of its clients.
    #[serde(default)]
    pub security: ListenerSecurity,
    /// In place of `kafka.sasl_mechanisms`.
    #[serde(default)]
    pub sasl_mechanisms: Option<Vec<Mechanism>>,
    /// In place of `kafka.tls_client_certificates`.
    #[serde(default)]
    pub tls_client_certificates: Option<ClientCertificates>,
}

/// How Kafka is served. Every queue and size has its limit here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaOptions {
    /// Whether the Kafka protocol is served at all.
    pub enabled: bool,
    /// The address of the first listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// `host:port` under which clients of the first listener reach it.
    pub advertised: Option<String>,
    /// What the first listener asks of its clients.
    pub security: ListenerSecurity,
    /// More listeners, each with its own address and security.
    pub listeners: Vec<ListenerOptions>,

    /// The server's certificate and those between it and its authority, PEM.
    pub tls_certificate_file: Option<PathBuf>,
    /// The certificate's private key, PEM; not to be readable by everybody.
    pub tls_key_file: Option<PathBuf>,
    /// The authorities that clients' certificates are signed by, PEM.
    pub tls_client_ca_file: Option<PathBuf>,
    /// What is asked of clients' certificates.
    pub tls_client_certificates: ClientCertificates,
    /// A TLS handshake that takes longer is given up; in ms.
    pub tls_handshake_ms_max: u64,
    /// How often the files are looked at for new certificates; in ms.
    pub tls_reload_interval_ms: u64,
    /// The SASL mechanisms that are offered.
    pub sasl_mechanisms: Vec<Mechanism>,
    /// Whether mechanisms that show the password to whoever listens on the wire
    /// are offered without TLS.
    pub sasl_plain_without_tls: bool,
    /// A login has to be made anew after this; in ms, 0 for never.
    pub sasl_session_ms_max: u64,
    /// The longest pause before a login from an address where logins failed; in
    /// ms.
    pub login_delay_ms_max: u64,
    /// Addresses whose failed logins are remembered.
    pub login_addresses_max: usize,

    /// Connections open at a time, over all listeners; more wait in the
    /// system's queue.
    pub connections_max: usize,
    /// Connections of one address at a time; more are closed at once.
    pub connections_per_address_max: usize,
    /// A connection that asks for nothing for this long is closed; in ms.
    pub idle_ms_max: u64,
    /// A connection whose peer takes nothing and answers nothing for this long
    /// is cut off; in ms.
    pub peer_ms_max: u32,
    /// An answer must be taken whole within this; in ms.
    pub answer_ms_max: u64,
    /// The largest request; a connection that announces a larger one is closed.
    pub request_bytes_max: usize,
    /// A request must arrive within this, from its first byte to its last, and
    /// a connection must prove its user within it; in ms.
    pub request_ms_max: u64,
    /// The largest request of a connection that has not proved its user.
    pub request_bytes_max_before_login: usize,
    /// Bytes of requests in memory at a time, of all such connections together.
    pub requests_bytes_max_before_login: usize,
    /// The most elements of all lists in one request together.
    pub request_elements_max: usize,
    /// Bytes of requests in memory at a time, over all connections; beyond them
    /// connections are not read from.
    pub requests_bytes_max: usize,
    /// Produce requests of one connection that are under way at a time.
    pub pipeline_max: usize,
    /// The most bytes that the batches of one produce request may have together
    /// when they are decompressed.
    pub produce_decompressed_bytes_max: usize,
    /// The most bytes of one fetch's answer, one batch that is larger apart.
    pub fetch_bytes_max: usize,
    /// Bytes of fetches' answers in memory at a time, over all connections;
    /// beyond them fetches wait.
    pub fetches_bytes_max: usize,
    /// How far reads of disk and tier 2 go ahead of a fetching client.
    pub cold_read_bytes: usize,
    /// Bytes of such reads in memory at a time, over all connections.
    pub cold_reads_bytes_max: usize,
    /// Such a read that no client goes on with for this long is given up, with
    /// what it holds in memory; in ms.
    pub cold_read_idle_ms_max: u64,
    /// The most fetch sessions; a client without one names all of its
    /// partitions with each request.
    pub fetch_sessions_max: usize,
    /// The most partitions of all fetch sessions together.
    pub fetch_session_partitions_max: usize,
    /// A fetch session that was idle for as long makes room for a new one; in
    /// ms.
    pub fetch_session_idle_ms_min: u64,
    /// A quota's window; in ms. A client that took nothing for all windows may
    /// take its quota for all of them at once.
    pub quota_window_ms: u64,
    /// How many windows a quota has.
    pub quota_windows: u32,
    /// The longest pause that a client is told to make for its quota; in ms, and
    /// never more than half of `request_ms_max`. What it still owes then makes
    /// it pause again.
    pub quota_throttle_ms_max: u64,
    /// The most clients whose use of their quotas is remembered.
    pub quota_buckets_max: usize,
    /// How long a stop waits for requests under way; in ms.
    pub drain_ms_max: u64,

    /// Whether a topic that a client asks after is created.
    pub auto_create_topics: bool,
    /// The partitions of a topic whose creator names no number.
    pub partitions_default: u32,

    /// The most groups with members, or with members once, at a time.
    pub groups_max: usize,
    /// The most members of one group.
    pub group_members_max: usize,
    /// The most protocols that a member names, from which the group chooses one.
    pub group_protocols_max: usize,
    /// The shortest session timeout that a member may ask for; in ms.
    pub group_session_ms_min: u64,
    /// The longest session timeout that a member may ask for; in ms.
    pub group_session_ms_max: u64,
    /// How long the first rebalance of an empty group waits for more members;
    /// it begins anew with each that comes. In ms; 0: not at all.
    pub group_initial_delay_ms: u64,
    /// A member of a consumer group (KIP-848) that is not heard of for this long
    /// is lost; in ms.
    pub consumer_group_session_ms: u64,
    /// How often members of consumer groups are told to be heard of; in ms.
    pub consumer_group_heartbeat_ms: u32,
    /// The most members of one consumer group.
    pub consumer_group_members_max: usize,
    /// Positions of a group are forgotten when it had no members for this long
    /// and they were not committed since; in ms.
    pub offsets_retention_ms: u64,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9092)),
            advertised: None,
            security: ListenerSecurity::Plaintext,
            listeners: Vec::new(),
            tls_certificate_file: None,
            tls_key_file: None,
            tls_client_ca_file: None,
            tls_client_certificates: ClientCertificates::None,
            tls_handshake_ms_max: 10_000,
            tls_reload_interval_ms: 30_000,
            sasl_mechanisms: vec![
                Mechanism::Scram(ScramHash::Sha512),
                Mechanism::Scram(ScramHash::Sha256),
                Mechanism::Plain,
            ],
            sasl_plain_without_tls: false,
            sasl_session_ms_max: 0,
            login_delay_ms_max: 2_000,
            login_addresses_max: 10_000,
            connections_max: 4096,
            connections_per_address_max: 1024,
            idle_ms_max: 600_000,
            peer_ms_max: 60_000,
            answer_ms_max: 300_000,
            request_bytes_max: 100 << 20,
            request_ms_max: 60_000,
            request_bytes_max_before_login: 512 << 10,
            requests_bytes_max_before_login: 16 << 20,
            request_elements_max: 200_000,
            requests_bytes_max: 256 << 20,
            pipeline_max: 16,
            produce_decompressed_bytes_max: 512 << 20,
            fetch_bytes_max: 8 << 20,
            fetches_bytes_max: 64 << 20,
            cold_read_bytes: 2 << 20,
            cold_reads_bytes_max: 96 << 20,
            cold_read_idle_ms_max: 10_000,
            fetch_sessions_max: 1_000,
            fetch_session_partitions_max: 200_000,
            fetch_session_idle_ms_min: 120_000,
            quota_window_ms: 1_000,
            quota_windows: 11,
            quota_throttle_ms_max: 10_000,
            quota_buckets_max: 10_000,
            drain_ms_max: 5_000,
            auto_create_topics: true,
            partitions_default: 1,
            groups_max: 10_000,
            group_members_max: 1_000,
            group_protocols_max: 16,
            group_session_ms_min: 6_000,
            group_session_ms_max: 1_800_000,
            group_initial_delay_ms: 500,
            consumer_group_session_ms: 45_000,
            consumer_group_heartbeat_ms: 5_000,
            consumer_group_members_max: 1_000,
            offsets_retention_ms: 7 * 24 * 3600 * 1000,
        }
    }
}

impl KafkaOptions {
    /// All listeners, the first one first.
    #[must_use]
    pub fn all_listeners(&self) -> Vec<ListenerOptions> {
        let first = ListenerOptions {
            listen: self.listen,
            advertised: self.advertised.clone(),
            security: self.security,
            sasl_mechanisms: None,
            tls_client_certificates: None,
        };
        std::iter::once(first).chain(self.listeners.iter().cloned()).collect()
    }

    /// Whether a listener that asks for no user can be reached from other
    /// machines.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.enabled
            && self
                .all_listeners()
                .iter()
                .any(|of| !of.listen.ip().is_loopback() && !self.proves_users(of))
    }

    /// Whether nobody gets through the listener without a proof.
    fn proves_users(&self, listener: &ListenerOptions) -> bool {
        listener.security.is_sasl()
            || (listener.security.is_tls()
                && self.client_certificates(listener) == ClientCertificates::Required)
    }

    /// What a listener asks of its clients' certificates.
    pub(crate) fn client_certificates(&self, listener: &ListenerOptions) -> ClientCertificates {
        listener.tls_client_certificates.unwrap_or(self.tls_client_certificates)
    }

    /// The files that listeners need for TLS, and the forms in which they need
    /// them; none where no listener is under TLS.
    pub(crate) fn tls(&self) -> Option<(TlsFiles, BTreeSet<ClientCertificates>)> {
        let listeners = self.all_listeners();
        let of_tls = listeners.iter().filter(|of| of.security.is_tls());
        let forms: BTreeSet<_> = of_tls.map(|of| self.client_certificates(of)).collect();
        let files = TlsFiles {
            certificate: self.tls_certificate_file.clone()?,
            key: self.tls_key_file.clone()?,
            client_ca: self.tls_client_ca_file.clone(),
        };
        (!forms.is_empty()).then_some((files, forms))
    }

    /// The mechanisms that a listener offers; `OAUTHBEARER` only where
    /// something validates tokens.
    pub(crate) fn mechanisms(
        &self,
        listener: &ListenerOptions,
        validates_tokens: bool,
    ) -> Vec<Mechanism> {
        if !listener.security.is_sasl() {
            return Vec::new();
        }
        let mechanisms = listener.sasl_mechanisms.as_ref().unwrap_or(&self.sasl_mechanisms);
        let is_safe = |of: Mechanism| {
            listener.security.is_tls() || self.sasl_plain_without_tls || !of.shows_the_secret()
        };
        let offered = mechanisms
            .iter()
            .filter(|of| is_safe(**of) && (validates_tokens || **of != Mechanism::OauthBearer));
        offered.copied().collect()
    }

    /// Checks the bounds of every field.
    ///
    /// # Errors
    /// The first field outside its bounds, and the rule.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let at_least = [
            ("connections_max", self.connections_max, 1),
            ("connections_per_address_max", self.connections_per_address_max, 1),
            ("request_ms_max", self.request_ms_max as usize, 100),
            ("request_bytes_max", self.request_bytes_max, 64 << 10),
            ("request_bytes_max_before_login", self.request_bytes_max_before_login, 4 << 10),
            (
                "requests_bytes_max_before_login",
                self.requests_bytes_max_before_login,
                self.request_bytes_max_before_login,
            ),
            ("request_elements_max", self.request_elements_max, 1_000),
            ("requests_bytes_max", self.requests_bytes_max, self.request_bytes_max),
            ("pipeline_max", self.pipeline_max, 1),
            ("produce_decompressed_bytes_max", self.produce_decompressed_bytes_max, 1 << 20),
            ("fetch_bytes_max", self.fetch_bytes_max, 64 << 10),
            ("fetches_bytes_max", self.fetches_bytes_max, self.fetch_bytes_max),
            ("cold_read_bytes", self.cold_read_bytes, 64 << 10),
            ("cold_reads_bytes_max", self.cold_reads_bytes_max, self.cold_read_bytes),
            ("cold_read_idle_ms_max", self.cold_read_idle_ms_max as usize, 100),
            ("fetch_sessions_max", self.fetch_sessions_max, 1),
            ("fetch_session_partitions_max", self.fetch_session_partitions_max, 1),
            ("groups_max", self.groups_max, 1),
            ("group_members_max", self.group_members_max, 1),
            ("group_protocols_max", self.group_protocols_max, 1),
            ("group_session_ms_min", self.group_session_ms_min as usize, 1),
            (
                "group_session_ms_max",
                self.group_session_ms_max as usize,
                self.group_session_ms_min as usize,
            ),
            ("consumer_group_heartbeat_ms", self.consumer_group_heartbeat_ms as usize, 1),
            (
                "consumer_group_session_ms",
                self.consumer_group_session_ms as usize,
                // One that is late is no loss yet.
                self.consumer_group_heartbeat_ms as usize * 2,
            ),
            ("consumer_group_members_max", self.consumer_group_members_max, 1),
            ("offsets_retention_ms", self.offsets_retention_ms as usize, 60_000),
            ("quota_window_ms", self.quota_window_ms as usize, 1),
            ("quota_windows", self.quota_windows as usize, 1),
            ("quota_throttle_ms_max", self.quota_throttle_ms_max as usize, 1),
            ("quota_buckets_max", self.quota_buckets_max, 1),
            ("partitions_default", self.partitions_default as usize, 1),
            ("idle_ms_max", self.idle_ms_max as usize, 1_000),
            ("peer_ms_max", self.peer_ms_max as usize, 1_000),
            ("answer_ms_max", self.answer_ms_max as usize, 1_000),
            ("tls_handshake_ms_max", self.tls_handshake_ms_max as usize, 100),
            ("tls_reload_interval_ms", self.tls_reload_interval_ms as usize, 10),
            ("login_addresses_max", self.login_addresses_max, 1),
        ];
        for (field, value, min) in at_least {
            if value < min {
                return Err((field, format!("is {value}, it must be at least {min}")));
            }
        }
        if self.partitions_default > PARTITIONS_MAX {
            let partitions = self.partitions_default;
            let why = format!("is {partitions}, a stream has at most {PARTITIONS_MAX}");
            return Err(("partitions_default", why));
        }
        if i32::try_from(self.consumer_group_heartbeat_ms).is_err() {
            let why = format!("clients are told at most {} ms", i32::MAX);
            return Err(("consumer_group_heartbeat_ms", why));
        }
        if self.request_bytes_max > i32::MAX as usize {
            return Err(("request_bytes_max", "a frame has at most 2 GiB".into()));
        }
        for listener in self.all_listeners() {
            if let Some(advertised) = &listener.advertised {
                split_host_port(advertised).map_err(|why| ("advertised", why))?;
            }
            self.validate_security(&listener)?;
        }
        Ok(())
    }

    fn validate_security(&self, listener: &ListenerOptions) -> Result<(), (&'static str, String)> {
        let at = listener.listen;
        if listener.security.is_tls() {
            if self.tls_certificate_file.is_none() {
                return Err(("tls_certificate_file", format!("is needed for TLS on {at}")));
            }
            if self.tls_key_file.is_none() {
                return Err(("tls_key_file", format!("is needed for TLS on {at}")));
            }
            let asks = self.client_certificates(listener) != ClientCertificates::None;
            if asks && self.tls_client_ca_file.is_none() {
                return Err((
                    "tls_client_ca_file",
                    format!("is needed to check clients' certificates on {at}"),
                ));
            }
        }
        // Whether something validates tokens is not known here.
        if listener.security.is_sasl() && self.mechanisms(listener, true).is_empty() {
            return Err((
                "sasl_mechanisms",
                format!(
                    "leaves nothing to offer on {at}; without TLS, PLAIN and OAUTHBEARER need \
                     kafka.sasl_plain_without_tls"
                ),
            ));
        }
        Ok(())
    }
}

/// Splits `host:port`, also `[v6]:port`.
pub(crate) fn split_host_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{text} is not of the form host:port");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.len() > 255 || host.chars().any(char::is_whitespace) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_split() {
        let check = |text, host: &str, port| {
            assert_eq!(split_host_port(text), Ok((host.to_owned(), port)), "{text}");
        };
        check("a.example:9092", "a.example", 9092);
        check("[::1]:1", "::1", 1);
        for bad in ["", "a", "a:", ":1", "a:70000", "a b:1"] {
            assert!(split_host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_asks_for_no_user_is_exposed() {
        let mut options = KafkaOptions::default();
        options.validate().unwrap();
        assert!(!options.is_exposed());
        options.listen = "0.0.0.0:9092".parse().unwrap();
        assert!(options.is_exposed());
        options.security = ListenerSecurity::SaslTls;
        assert!(!options.is_exposed());
    }

    #[test]
    fn what_a_listener_needs_is_asked_for() {
        let check = |options: &KafkaOptions, field: Option<&str>| {
            assert_eq!(options.validate().err().map(|(field, _)| field), field);
        };
        let tls = of_json(r#"{"security": "tls"}"#);
        check(&tls, Some("tls_certificate_file"));
        let tls = KafkaOptions { tls_certificate_file: Some("a".into()), ..tls };
        check(&tls, Some("tls_key_file"));
        let tls = KafkaOptions { tls_key_file: Some("b".into()), ..tls };
        check(&tls, None);
        let mutual =
            KafkaOptions { tls_client_certificates: ClientCertificates::Required, ..tls.clone() };
        check(&mutual, Some("tls_client_ca_file"));
        let mutual = KafkaOptions {
            listen: "0.0.0.0:9092".parse().unwrap(),
            tls_client_ca_file: Some("c".into()),
            ..mutual
        };
        check(&mutual, None);
        assert!(!mutual.is_exposed());
        let plain = of_json(r#"{"security": "sasl_plaintext", "sasl_mechanisms": ["PLAIN"]}"#);
        check(&plain, Some("sasl_mechanisms"));
        check(&KafkaOptions { sasl_plain_without_tls: true, ..plain.clone() }, None);
        check(&KafkaOptions { security: ListenerSecurity::SaslTls, ..tls }, None);
        for (partitions, field) in [(0, Some("partitions_default")), (1, None), (10_000, None)] {
            let options = KafkaOptions { partitions_default: partitions, ..Default::default() };
            check(&options, field);
        }
        let many = KafkaOptions { partitions_default: PARTITIONS_MAX + 1, ..Default::default() };
        check(&many, Some("partitions_default"));
    }

    #[test]
    fn only_what_is_safe_is_offered() {
        let check = |text: &str, validates_tokens, names: &[&str]| {
            let options = of_json(text);
            let listener = &options.all_listeners()[0];
            let mechanisms = options.mechanisms(listener, validates_tokens);
            let found: Vec<_> = mechanisms.iter().map(|of| of.as_str()).collect();
            assert_eq!(found, names);
        };
        check("{}", true, &[]);
        let scram = ["SCRAM-SHA-512", "SCRAM-SHA-256"];
        check(r#"{"security": "sasl_plaintext"}"#, true, &scram);
        check(r#"{"security": "sasl_tls"}"#, true, &[scram[0], scram[1], "PLAIN"]);
        let token = r#"{"security": "sasl_tls", "sasl_mechanisms": ["OAUTHBEARER"]}"#;
        check(token, true, &["OAUTHBEARER"]);
        check(token, false, &[]);
    }

    fn of_json(text: &str) -> KafkaOptions {
        serde_json::from_str(text).unwrap()
    }
}
