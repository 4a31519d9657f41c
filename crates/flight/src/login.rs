//! Who calls: by name and password once, by a token from then on.
//!
//! A name and password in any call's header `authorization` (Basic, RFC 7617)
//! are answered with a token in the same header (Bearer, RFC 6750), as Flight's
//! clients expect of a handshake. Whoever fails is told that it did, and nothing
//! that would tell users from those who do not exist; addresses where logins
//! fail wait longer and longer for the next.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use aquifer_types::TenantName;
use aquifer_users::{Password, UserName};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use crate::metrics::result;
use crate::options::FlightSecurity;
use crate::problem::Problem;
use crate::server::Door;
use crate::sessions::SessionId;

/// Go's clients leave the padding out, all others write it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Logins under way at a time, those that have to wait included; more are refused.
pub(crate) const LOGINS_MAX: usize = 512;
/// What is given where nobody is asked: clients want a token for their handshake.
const NO_TOKEN: &str = "anybody";

/// Whose handles and runs they are: a user's, or an address's where users are
/// not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Owner(Arc<str>);

impl Owner {
    pub(crate) fn of_user(user: &str) -> Self {
        Self(format!("user {user}").into())
    }

    fn of_address(address: IpAddr) -> Self {
        Self(format!("address {}", address.to_canonical()).into())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who makes a call.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) owner: Owner,
    pub(crate) tenant: TenantName,
    /// The session of the token that it showed.
    pub(crate) session: Option<SessionId>,
}

/// A caller that is let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) caller: Caller,
    /// What it is to show from now on.
    pub(crate) token: Option<String>,
}

/// What a header holds.
enum Proof {
    Basic { user: String, password: String },
    Bearer(String),
}

/// Lets a caller in.
///
/// # Errors
/// Why not.
pub(crate) async fn admit(
    door: &Door,
    address: IpAddr,
    headers: &HeaderMap,
) -> Result<Admitted, Problem> {
    let tenant = TenantName::default_tenant();
    let proof = proof(headers);
    if door.options.security == FlightSecurity::None {
        let owner = Owner::of_address(address);
        let token = matches!(proof, Ok(Some(Proof::Basic { .. }))).then(|| NO_TOKEN.to_owned());
        return Ok(Admitted { caller: Caller { owner, tenant, session: None }, token });
    }
    match proof? {
        None => Err(Problem::unauthenticated(
            "log in: name and password (Basic) in the header authorization, or the token that \
             was given for them (Bearer)",
        )),
        Some(Proof::Bearer(token)) => {
            let (session, user) = door.sessions.find(&token, door.now()).ok_or_else(|| {
                Problem::unauthenticated("the token is not known, or is over: log in anew")
            })?;
            let caller = Caller { owner: Owner::of_user(&user), tenant, session: Some(session) };
            Ok(Admitted { caller, token: None })
        }
        Some(Proof::Basic { user, password }) => {
            prove(door, address, &tenant, &user, password).await?;
            let token = door.sessions.open(&user, door.random.as_ref(), door.now());
            let caller = Caller { owner: Owner::of_user(&user), tenant, session: None };
            Ok(Admitted { caller, token: Some(token) })
        }
    }
}

async fn prove(
    door: &Door,
    address: IpAddr,
    tenant: &TenantName,
    user: &str,
    password: String,
) -> Result<(), Problem> {
    let Ok(_place) = door.logins.try_acquire() else {
        door.metrics.calls_refused.inc();
        let message = format!("{LOGINS_MAX} logins are under way: try again later");
        return Err(Problem::limit(message));
    };
    let wait = door.attempts.lock().begin(address, door.now());
    tokio::time::sleep(wait).await;
    let is_right = match (UserName::new(user), Password::new(password)) {
        (Ok(name), Ok(password)) => {
            let checked = door.users.is_password(tenant, &name, password).await;
            checked.unwrap_or_else(|error| {
                tracing::error!(%error, "a login could not be checked");
                false
            })
        }
        _ => false,
    };
    door.metrics.logins.get_or_create(&result(is_right)).inc();
    if is_right {
        return Ok(());
    }
    door.attempts.lock().failed(address, door.now());
    // A client chose it: as text it is quoted, and forges no line.
    tracing::info!(%address, user, "a Flight login failed");
    Err(Problem::unauthenticated("name or password is wrong"))
}

fn proof(headers: &HeaderMap) -> Result<Option<Proof>, Problem> {
    let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let malformed = || Problem::unauthenticated("the header authorization cannot be read");
    let header = header.to_str().map_err(|_| malformed())?;
    let (scheme, rest) = header.split_once(' ').ok_or_else(malformed)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Proof::Bearer(rest.to_owned())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let bytes = BASE64.decode(rest).map_err(|_| malformed())?;
    let text = String::from_utf8(bytes).map_err(|_| malformed())?;
    let (user, password) = text.split_once(':').ok_or_else(malformed)?;
    Ok(Some(Proof::Basic { user: user.to_owned(), password: password.to_owned() }))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn read(header: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        let Ok(value) = HeaderValue::from_bytes(header) else { return "no header".to_owned() };
        headers.insert(AUTHORIZATION, value);
        match proof(&headers) {
            Ok(Some(Proof::Basic { user, password })) => format!("{user}|{password}"),
            Ok(Some(Proof::Bearer(token))) => format!("token {token}"),
            Ok(None) => "nothing".to_owned(),
            Err(problem) => problem.name,
        }
    }

    #[test]
    fn headers_are_read() {
        for (header, expected) in [
            (&b"Basic YWxpY2U6cGVuY2ls"[..], "alice|pencil"),
            (b"basic YWxpY2U6YTpi", "alice|a:b"),
            (b"Basic YWxpY2U6YTpiYw==", "alice|a:bc"),
            (b"Basic YWxpY2U6YTpiYw", "alice|a:bc"),
            (b"Bearer  abc", "token abc"),
            (b"Basic YWxpY2U", "unauthenticated"),
            (b"Basic %%%", "unauthenticated"),
            (b"Basic /w==", "unauthenticated"),
            (b"Digest abc", "unauthenticated"),
            (b"Basic", "unauthenticated"),
            (b"\xff", "unauthenticated"),
        ] {
            assert_eq!(read(header), expected, "{header:?}");
        }
        assert!(proof(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn fuzz_flight_logins() {
        let corpus = [b"Basic YWxpY2U6cGVuY2ls".to_vec(), b"Bearer abc".to_vec()];
        aquifer_testkit::fuzz("flight_logins", 0.1, &corpus, |bytes| {
            let _ = read(bytes);
        });
    }
}
