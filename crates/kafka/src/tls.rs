//! Whom a client's certificate proves.

use aquifer_types::TenantName;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

use crate::authorizer::{Principal, Proof};

/// The principal that a client's certificate proves; none where it has no
/// subject that can be written down.
pub(crate) fn principal(certificate: &CertificateDer<'_>) -> Option<Principal> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let user = distinguished_name(certificate.subject())?;
    let tenant = TenantName::default_tenant();
    Some(Principal { tenant, user, proof: Proof::Certificate })
}

/// A name as RFC 2253 writes it: the last part first, as Kafka's own
/// principals are written.
fn distinguished_name(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.iter_rdn() {
        let mut attributes = Vec::new();
        for attribute in part.iter() {
            let oid = attribute.attr_type();
            let kind = match oid.to_id_string().as_str() {
                "2.5.4.3" => "CN".to_owned(),
                "2.5.4.6" => "C".to_owned(),
                "2.5.4.7" => "L".to_owned(),
                "2.5.4.8" => "ST".to_owned(),
                "2.5.4.9" => "STREET".to_owned(),
                "2.5.4.10" => "O".to_owned(),
                "2.5.4.11" => "OU".to_owned(),
                "0.9.2342.19200300.100.1.1" => "UID".to_owned(),
                "0.9.2342.19200300.100.1.25" => "DC".to_owned(),
                other => other.to_owned(),
            };
            attributes.push(format!("{kind}={}", escaped(attribute.as_str().ok()?)?));
        }
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    (!parts.is_empty()).then(|| parts.join(","))
}

/// RFC 2253, section 2.4; none for control characters, which could make one
/// name look like another.
fn escaped(value: &str) -> Option<String> {
    if value.chars().any(char::is_control) {
        return None;
    }
    let last = value.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(value.len());
    for (at, character) in value.chars().enumerate() {
        let is_edge_space = character == ' ' && (at == 0 || at == last);
        let is_first_hash = character == '#' && at == 0;
        if ",+\"\\<>;".contains(character) || is_edge_space || is_first_hash {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    Some(escaped)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn subjects_are_written_as_kafka_writes_them() {
        let check = |names: &[(DnType, &str)], expected: Option<&str>| {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            for (kind, name) in names {
                params.distinguished_name.push(kind.clone(), *name);
            }
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let found = principal(certificate.der());
            assert_eq!(found.as_ref().map(|found| found.user.as_str()), expected);
            assert!(found.is_none_or(|found| found.proof == Proof::Certificate));
        };
        let (common, organisation, country) =
            (DnType::CommonName, DnType::OrganizationName, DnType::CountryName);
        check(
            &[(country, "DE"), (organisation, "Example, Inc."), (common.clone(), "client-1")],
            Some("CN=client-1,O=Example\\, Inc.,C=DE"),
        );
        check(&[(common.clone(), " #a+b ")], Some("CN=\\ #a\\+b\\ "));
        check(&[(common.clone(), "#a")], Some("CN=\\#a"));
        check(&[(common, "a\u{7}")], None);
        check(&[], None);
    }
}
