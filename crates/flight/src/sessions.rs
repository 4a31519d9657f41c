//! Tokens: what a client that proved its user shows instead, for a time.
//!
//! They live in memory: after a restart, clients log in anew. A token is an id
//! and a secret; whoever knows one token learns nothing of others.

use std::collections::HashMap;
use std::time::Duration;

use aquifer_env::Random;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;

const ID_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;

/// A session's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId([u8; ID_BYTES]);

/// How many there are and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionLimits {
    pub(crate) count_max: usize,
    pub(crate) idle_max: Duration,
    pub(crate) age_max: Duration,
}

/// The tokens that are valid.
pub(crate) struct Sessions {
    limits: SessionLimits,
    of: Mutex<HashMap<SessionId, Session>>,
}

struct Session {
    secret: [u8; SECRET_BYTES],
    user: String,
    opened: Duration,
    used: Duration,
}

impl Session {
    fn is_over(&self, limits: &SessionLimits, now: Duration) -> bool {
        now.saturating_sub(self.used) > limits.idle_max
            || now.saturating_sub(self.opened) > limits.age_max
    }
}

impl Sessions {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self { limits, of: Mutex::default() }
    }

    /// A new token for a user who was proved.
    pub(crate) fn open(&self, user: &str, random: &dyn Random, now: Duration) -> String {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        random.fill(&mut id);
        random.fill(&mut secret);
        let mut of = self.of.lock();
        if of.len() >= self.limits.count_max {
            of.retain(|_, session| !session.is_over(&self.limits, now));
        }
        if of.len() >= self.limits.count_max {
            let oldest = of.iter().min_by_key(|(_, session)| session.used).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                of.remove(&oldest);
            }
        }
        let session = Session { secret, user: user.to_owned(), opened: now, used: now };
        of.insert(SessionId(id), session);
        drop(of);
        URL_SAFE_NO_PAD.encode([&id[..], &secret[..]].concat())
    }

    /// Whose token it is, where it is valid; it counts as used.
    pub(crate) fn find(&self, token: &str, now: Duration) -> Option<(SessionId, String)> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (id, secret) = bytes.split_first_chunk::<ID_BYTES>()?;
        let id = SessionId(*id);
        let mut of = self.of.lock();
        let session = of.get_mut(&id)?;
        if session.is_over(&self.limits, now) {
            of.remove(&id);
            return None;
        }
        if !bool::from(session.secret.as_slice().ct_eq(secret)) {
            return None;
        }
        session.used = now;
        Some((id, session.user.clone()))
    }

    /// Ends a session.
    pub(crate) fn close(&self, id: SessionId) {
        self.of.lock().remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use aquifer_env::SeededRandom;

    use super::*;

    const LIMITS: SessionLimits = SessionLimits {
        count_max: 2,
        idle_max: Duration::from_secs(10),
        age_max: Duration::from_secs(25),
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn user(sessions: &Sessions, token: &str, seconds: u64) -> Option<String> {
        sessions.find(token, at(seconds)).map(|(_, user)| user)
    }

    #[test]
    fn a_token_is_valid_for_a_time_and_as_it_was_given() {
        let (sessions, random) = (Sessions::new(LIMITS), SeededRandom::new(1));
        let token = sessions.open("alice", &random, at(0));
        let mut forged = token.clone();
        let last = forged.pop().unwrap();
        forged.push(if last == 'A' { 'E' } else { 'A' });
        for wrong in [forged.as_str(), &token[..token.len() - 4], "", "x y", "anything"] {
            assert_eq!(user(&sessions, wrong, 1), None, "{wrong}");
        }
        for seconds in [5, 15, 25] {
            assert_eq!(user(&sessions, &token, seconds).as_deref(), Some("alice"));
        }
        // However much it is used.
        assert_eq!(user(&sessions, &token, 26), None);
        let token = sessions.open("bob", &random, at(30));
        assert_eq!(user(&sessions, &token, 41), None);
    }

    #[test]
    fn the_one_that_was_used_least_recently_makes_room() {
        let (sessions, random) = (Sessions::new(LIMITS), SeededRandom::new(1));
        let tokens = ["a", "b"].map(|name| sessions.open(name, &random, at(0)));
        assert!(user(&sessions, &tokens[0], 1).is_some());
        let third = sessions.open("c", &random, at(2));
        assert_eq!(user(&sessions, &tokens[1], 3), None);
        assert!(user(&sessions, &tokens[0], 3).is_some());
        let (id, _) = sessions.find(&third, at(3)).unwrap();
        sessions.close(id);
        assert_eq!(user(&sessions, &third, 3), None);
    }
}
