//! SCRAM (RFC 5802) with SHA-256 (RFC 7677) and SHA-512, the server's side.
//!
//! ```text
//! client  n,,n=user,r=nonce
//! server  r=nonce+ours,s=salt,i=iterations
//! client  c=biws,r=nonce+ours,p=proof
//! server  v=signature
//! ```
//!
//! There is no channel binding: the clients of today's protocols do not ask for
//! it. Names and passwords are taken as they come, as Kafka does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};
use subtle::ConstantTimeEq as _;

use super::attributes::{gs2_header, take, user_name};
use super::{MESSAGE_BYTES_MAX, SaslError};
use crate::mechanism::ScramHash;
use crate::{UserName, Verifier};

/// The client's first message.
#[derive(Debug)]
pub struct ScramFirst {
    /// Who it says it is.
    pub user: UserName,
    nonce: String,
    /// As the client has to repeat it in base64.
    gs2_header: String,
    bare: String,
}

/// A login of which the client's proof is awaited.
pub struct ScramExchange {
    hash: ScramHash,
    verifier: Verifier,
    nonce: String,
    channel_binding: String,
    /// The first two messages, as both sides sign them.
    signed: String,
}

// What proves the user stays out of logs.
impl std::fmt::Debug for ScramExchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScramExchange({})", self.hash.as_str())
    }
}

impl ScramFirst {
    /// Reads the client's first message.
    ///
    /// # Errors
    /// [`SaslError`] where it is malformed, or asks for channel binding, for
    /// an extension that it says is mandatory, or to act for another user.
    pub fn parse(message: &[u8]) -> Result<Self, SaslError> {
        Self::read(message, None)
    }

    /// Reads the client's first message where the protocol has named the user
    /// before, as PostgreSQL's does: the name in the message does not count,
    /// and may be empty.
    ///
    /// # Errors
    /// As [`ScramFirst::parse`].
    pub fn parse_as(message: &[u8], user: UserName) -> Result<Self, SaslError> {
        Self::read(message, Some(user))
    }

    fn read(message: &[u8], user: Option<UserName>) -> Result<Self, SaslError> {
        let text = text(message)?;
        let header = gs2_header(text)?;
        let mut rest = Some(header.message);
        if header.message.starts_with("m=") {
            return Err(SaslError::Unsupported("a mandatory extension"));
        }
        let name = take(&mut rest, 'n', "the user name")?;
        let user = match user {
            Some(user) => user,
            None => UserName::new(&user_name(name)?)
                .map_err(|_| SaslError::Malformed("the user name"))?,
        };
        let nonce = take(&mut rest, 'r', "the nonce")?;
        let is_printable = |byte: u8| (0x21..=0x7e).contains(&byte);
        if nonce.is_empty() || !nonce.bytes().all(is_printable) {
            return Err(SaslError::Malformed("the nonce"));
        }
        // Kafka's delegation tokens: another kind of user, which is not here.
        if rest.is_some_and(|rest| rest.split(',').any(|one| one == "tokenauth=true")) {
            return Err(SaslError::Unsupported("a delegation token"));
        }
        if header.authorization_id.is_some_and(|id| id != user.as_str()) {
            return Err(SaslError::ForAnother);
        }
        Ok(Self {
            user,
            nonce: nonce.to_owned(),
            gs2_header: header.text.to_owned(),
            bare: header.message.to_owned(),
        })
    }

    /// The server's first message, and what awaits the answer to it. `nonce` is
    /// random, printable and without a comma.
    #[must_use]
    pub fn challenge(
        self,
        hash: ScramHash,
        verifier: Verifier,
        nonce: &str,
    ) -> (String, ScramExchange) {
        let nonce = format!("{}{nonce}", self.nonce);
        let salt = STANDARD.encode(&verifier.salt);
        let message = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let signed = format!("{},{message}", self.bare);
        let channel_binding = STANDARD.encode(&self.gs2_header);
        (message, ScramExchange { hash, verifier, nonce, channel_binding, signed })
    }
}

impl ScramExchange {
    /// Checks the client's final message; the server's is answered.
    ///
    /// # Errors
    /// [`SaslError::Wrong`] where the proof does not fit; others where the
    /// message is malformed.
    pub fn finish(self, message: &[u8]) -> Result<String, SaslError> {
        let text = text(message)?;
        let (without_proof, proof) =
            text.rsplit_once(",p=").ok_or(SaslError::Malformed("the proof"))?;
        let mut rest = Some(without_proof);
        if take(&mut rest, 'c', "the channel binding")? != self.channel_binding {
            return Err(SaslError::Malformed("the channel binding"));
        }
        if take(&mut rest, 'r', "the nonce")? != self.nonce {
            return Err(SaslError::Malformed("the nonce"));
        }
        let proof = STANDARD.decode(proof).map_err(|_| SaslError::Malformed("the proof"))?;
        if proof.len() != self.hash.bytes() {
            return Err(SaslError::Malformed("the proof"));
        }
        let auth_message = format!("{},{without_proof}", self.signed);
        let sign = |key: &[u8]| {
            hmac::sign(&hmac::Key::new(self.hash.hmac(), key), auth_message.as_bytes())
        };
        let client_signature = sign(&self.verifier.stored_key);
        let client_key: Vec<u8> =
            proof.iter().zip(client_signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let stored_key = digest::digest(self.hash.digest(), &client_key);
        if !bool::from(stored_key.as_ref().ct_eq(&self.verifier.stored_key)) {
            return Err(SaslError::Wrong);
        }
        let signature = sign(&self.verifier.server_key);
        Ok(format!("v={}", STANDARD.encode(signature)))
    }
}

fn text(message: &[u8]) -> Result<&str, SaslError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(SaslError::Malformed("it is too long"));
    }
    std::str::from_utf8(message).map_err(|_| SaslError::Malformed("not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Password;

    /// The example of RFC 7677, section 3.
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn verifier(hash: ScramHash, password: &str) -> Verifier {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::derive(hash, &Password::new(password).unwrap(), salt, 4096).unwrap()
    }

    fn exchange(password: &str) -> (String, ScramExchange) {
        let first = ScramFirst::parse(FIRST.as_bytes()).unwrap();
        assert_eq!(first.user.as_str(), "user");
        let verifier = verifier(ScramHash::Sha256, password);
        first.challenge(ScramHash::Sha256, verifier, SERVER_NONCE)
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let (challenge, exchange) = exchange("pencil");
        assert_eq!(challenge, CHALLENGE);
        assert_eq!(exchange.finish(FINAL.as_bytes()).as_deref(), Ok(SERVER_FINAL));
    }

    #[test]
    fn the_user_may_be_named_elsewhere() {
        let user = || UserName::new("user").unwrap();
        for message in ["n,,n=,r=abc", "n,,n=*,r=abc", "y,,n=other,r=abc"] {
            assert_eq!(ScramFirst::parse_as(message.as_bytes(), user()).unwrap().user, user());
        }
        assert!(ScramFirst::parse(b"n,,n=,r=abc").is_err());
        assert!(ScramFirst::parse_as(b"n,,r=abc", user()).is_err());
        assert!(ScramFirst::parse_as(b"n,a=x,n=,r=abc", user()).is_err());
    }

    #[test]
    fn a_wrong_proof_fails_whatever_is_wrong_with_it() {
        let (_, other) = exchange("pencils");
        assert_eq!(other.finish(FINAL.as_bytes()), Err(SaslError::Wrong));
        let check = |from: &str, to: &str, error: SaslError| {
            let (_, exchange) = exchange("pencil");
            let message = FINAL.replace(from, to);
            assert_ne!(message, FINAL);
            let found = exchange.finish(message.as_bytes()).unwrap_err();
            assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&error), "{found}");
        };
        check("dHzb", "dHzc", SaslError::Wrong);
        check("c=biws", "c=eSws", SaslError::Malformed(""));
        check("c=biws,", "", SaslError::Malformed(""));
        check("r=rOpr", "r=rOps", SaslError::Malformed(""));
        check(SERVER_NONCE, "", SaslError::Malformed(""));
        check(",p=", ",q=", SaslError::Malformed(""));
        check("AndVQ=", "AndVQ", SaslError::Malformed(""));
        check("AndVQ=", "AA==", SaslError::Malformed(""));
        // An extension changes what is signed, and nothing signed it.
        check(",p=", ",x=1,p=", SaslError::Wrong);
    }

    /// A client's side, for hashes that no RFC has an example of.
    fn prove(hash: ScramHash, password: &str, challenge: &str, bare: &str) -> String {
        let password = Password::new(password).unwrap();
        let attributes: Vec<&str> = challenge.split(',').collect();
        let salt = STANDARD.decode(&attributes[1][2..]).unwrap();
        let rounds = attributes[2][2..].parse::<u32>().unwrap().try_into().unwrap();
        let mut salted = vec![0; hash.bytes()];
        ring::pbkdf2::derive(hash.pbkdf2(), rounds, &salt, password.as_bytes(), &mut salted);
        let key = hmac::Key::new(hash.hmac(), &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let stored_key = digest::digest(hash.digest(), client_key.as_ref());
        let without_proof = format!("c=biws,{}", attributes[0]);
        let signed = format!("{bare},{challenge},{without_proof}");
        let key = hmac::Key::new(hash.hmac(), stored_key.as_ref());
        let signature = hmac::sign(&key, signed.as_bytes());
        let proof: Vec<u8> =
            client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }

    #[test]
    fn both_hashes_prove_a_user() {
        for hash in ScramHash::ALL {
            for (password, is_right) in [("pencil", true), ("pensil", false)] {
                let first = ScramFirst::parse(b"n,,n=a=3Db,r=abc,extra=1").unwrap();
                assert_eq!(first.user.as_str(), "a=b");
                let (challenge, exchange) = first.challenge(hash, verifier(hash, "pencil"), "xyz");
                let proof = prove(hash, password, &challenge, "n=a=3Db,r=abc,extra=1");
                assert_eq!(exchange.finish(proof.as_bytes()).is_ok(), is_right);
            }
        }
    }

    #[test]
    fn first_messages_are_checked() {
        let check = |message: &str, error: SaslError| {
            let found = ScramFirst::parse(message.as_bytes()).unwrap_err();
            assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&error), "{found}");
        };
        check("", SaslError::Malformed(""));
        check("n,,", SaslError::Malformed(""));
        check("n,,n=user", SaslError::Malformed(""));
        check("n,,n=user,r=", SaslError::Malformed(""));
        check("n,,n=user,r=a b", SaslError::Malformed(""));
        check("n,,r=abc,n=user", SaslError::Malformed(""));
        check("n,,n=us=er,r=abc", SaslError::Malformed(""));
        check("p=tls-unique,,n=user,r=abc", SaslError::Unsupported(""));
        check("n,,m=x,n=user,r=abc", SaslError::Unsupported(""));
        check("n,,n=user,r=abc,tokenauth=true", SaslError::Unsupported(""));
        check("n,a=other,n=user,r=abc", SaslError::ForAnother);
        assert!(ScramFirst::parse(b"n,a=user,n=user,r=abc").is_ok());
        assert!(ScramFirst::parse(b"y,,n=user,r=abc").is_ok());
        assert!(ScramFirst::parse(b"n,,n=user,r=\xff").is_err());
        assert!(ScramFirst::parse(&vec![b'n'; MESSAGE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn no_message_makes_it_panic() {
        mutations(FIRST.as_bytes(), |bytes| {
            let _ = ScramFirst::parse(bytes);
        });
        mutations(FINAL.as_bytes(), |bytes| {
            let _ = exchange("pencil").1.finish(bytes);
        });
    }

    /// Every single byte changed, left out, and everything cut off behind it.
    fn mutations(message: &[u8], check: impl Fn(&[u8])) {
        for at in 0..message.len() {
            check(&message[..at]);
            check(&[&message[..at], &message[at + 1..]].concat());
        }
        for byte in [0, b',', b'=', 0xff] {
            for at in (0..message.len()).step_by(7) {
                let mut changed = message.to_vec();
                changed[at] = byte;
                check(&changed);
            }
        }
    }
}
