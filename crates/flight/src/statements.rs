//! Prepared statements, with the values that were bound to them last.
//!
//! A handle belongs to its user (or address), not to a connection: clients of
//! gRPC open new connections as they like. So what a client leaves behind goes
//! when nobody used it for a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::Random;
use aquifer_query::Parameter;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use crate::login::Owner;
use crate::problem::Problem;
use crate::tickets::RunId;

/// How many there are, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatementLimits {
    pub(crate) count_max: usize,
    pub(crate) per_owner_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) idle_max: Duration,
}

/// A statement and its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bound {
    pub(crate) sql: Arc<str>,
    pub(crate) parameters: Vec<Parameter>,
}

/// All prepared statements.
pub(crate) struct Statements {
    limits: StatementLimits,
    gauge: Gauge,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    of: HashMap<(Owner, RunId), Entry>,
    by_owner: HashMap<Owner, usize>,
    bytes: usize,
}

struct Entry {
    bound: Bound,
    bytes: usize,
    used: Duration,
}

impl Statements {
    pub(crate) fn new(limits: StatementLimits, gauge: Gauge) -> Self {
        Self { limits, gauge, kept: Mutex::default() }
    }

    /// Keeps a statement; its handle.
    ///
    /// # Errors
    /// A limit, where nothing idle makes room.
    pub(crate) fn prepare(
        &self,
        owner: &Owner,
        sql: &str,
        random: &dyn Random,
        now: Duration,
    ) -> Result<RunId, Problem> {
        let mut kept = self.kept.lock();
        if self.check(&kept, owner, sql.len()).is_err() {
            kept.forget_idle(now, self.limits.idle_max);
            self.gauge.set(kept.of.len() as i64);
        }
        self.check(&kept, owner, sql.len())?;
        let id = RunId::new(random);
        let bound = Bound { sql: sql.into(), parameters: Vec::new() };
        kept.of.insert((owner.clone(), id), Entry { bound, bytes: sql.len(), used: now });
        *kept.by_owner.entry(owner.clone()).or_default() += 1;
        kept.bytes += sql.len();
        self.gauge.set(kept.of.len() as i64);
        Ok(id)
    }

    fn check(&self, kept: &Kept, owner: &Owner, bytes: usize) -> Result<(), Problem> {
        let limits = &self.limits;
        let of_owner = kept.by_owner.get(owner).copied().unwrap_or_default();
        let (max, name) = if of_owner >= limits.per_owner_max {
            (limits.per_owner_max, "statements_per_client_max")
        } else if kept.of.len() >= limits.count_max {
            (limits.count_max, "statements_max")
        } else if kept.bytes.saturating_add(bytes) > limits.bytes_max {
            (limits.bytes_max, "statements_bytes_max")
        } else {
            return Ok(());
        };
        Err(Problem::limit(format!(
            "no more prepared statements can be kept than {max} (flight.{name}): close some"
        )))
    }

    /// Puts values in the place of those bound before.
    ///
    /// # Errors
    /// An unknown handle, or a limit.
    pub(crate) fn bind(
        &self,
        owner: &Owner,
        id: RunId,
        parameters: Vec<Parameter>,
        now: Duration,
    ) -> Result<(), Problem> {
        let mut kept = self.kept.lock();
        let kept = &mut *kept;
        let all = kept.bytes;
        let entry = self.entry(kept, owner, id, now)?;
        let bytes = entry.bound.sql.len() + bytes_of(&parameters);
        let all = all - entry.bytes + bytes;
        let bytes_max = self.limits.bytes_max;
        if all > bytes_max {
            return Err(Problem::limit(format!(
                "the values of prepared statements would take more than {bytes_max} bytes \
                 (flight.statements_bytes_max): bind smaller ones, or close some statements"
            )));
        }
        entry.bytes = bytes;
        entry.bound.parameters = parameters;
        kept.bytes = all;
        Ok(())
    }

    /// A statement with its values.
    ///
    /// # Errors
    /// An unknown handle.
    pub(crate) fn get(&self, owner: &Owner, id: RunId, now: Duration) -> Result<Bound, Problem> {
        let mut kept = self.kept.lock();
        self.entry(&mut kept, owner, id, now).map(|entry| entry.bound.clone())
    }

    /// Forgets a statement; one that is not there is forgotten already.
    pub(crate) fn close(&self, owner: &Owner, id: RunId) {
        let mut kept = self.kept.lock();
        kept.forget(&(owner.clone(), id));
        self.gauge.set(kept.of.len() as i64);
    }

    fn entry<'a>(
        &self,
        kept: &'a mut Kept,
        owner: &Owner,
        id: RunId,
        now: Duration,
    ) -> Result<&'a mut Entry, Problem> {
        let key = (owner.clone(), id);
        let idle_max = self.limits.idle_max;
        if kept.of.get(&key).is_some_and(|entry| entry.is_idle(now, idle_max)) {
            kept.forget(&key);
            self.gauge.set(kept.of.len() as i64);
        }
        let entry = kept.of.get_mut(&key).ok_or_else(unknown)?;
        entry.used = now;
        Ok(entry)
    }
}

impl Entry {
    fn is_idle(&self, now: Duration, idle_max: Duration) -> bool {
        now.saturating_sub(self.used) > idle_max
    }
}

impl Kept {
    fn forget(&mut self, key: &(Owner, RunId)) {
        let Some(entry) = self.of.remove(key) else { return };
        self.bytes -= entry.bytes;
        if let Some(count) = self.by_owner.get_mut(&key.0) {
            *count -= 1;
            if *count == 0 {
                self.by_owner.remove(&key.0);
            }
        }
    }

    fn forget_idle(&mut self, now: Duration, idle_max: Duration) {
        let idle = self.of.iter().filter(|(_, entry)| entry.is_idle(now, idle_max));
        let idle: Vec<_> = idle.map(|(key, _)| key.clone()).collect();
        idle.iter().for_each(|key| self.forget(key));
    }
}

/// What a handle that is none, or none any more, is answered with.
pub(crate) fn unknown() -> Problem {
    Problem::not_found(
        "prepared-unknown",
        "there is no such prepared statement: it was closed, not used for long, or is another \
         user's; prepare it anew",
    )
}

/// What values take.
fn bytes_of(parameters: &[Parameter]) -> usize {
    let text = |parameter: &Parameter| match parameter {
        Parameter::Text(text) => text.len(),
        _ => 0,
    };
    size_of_val(parameters) + parameters.iter().map(text).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use aquifer_env::SeededRandom;

    use super::*;

    fn statements(per_owner_max: usize, bytes_max: usize) -> Statements {
        let idle_max = Duration::from_secs(10);
        let limits = StatementLimits { count_max: 3, per_owner_max, bytes_max, idle_max };
        Statements::new(limits, Gauge::default())
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_handle_is_its_owners_until_it_is_closed_or_idle() {
        let (statements, random) = (statements(3, 1000), SeededRandom::new(1));
        let (alice, bob) = (Owner::of_user("alice"), Owner::of_user("bob"));
        let id = statements.prepare(&alice, "SELECT $1", &random, at(0)).unwrap();
        let values = vec![Parameter::Text("x".to_owned())];
        statements.bind(&alice, id, values.clone(), at(1)).unwrap();
        let bound = statements.get(&alice, id, at(2)).unwrap();
        assert_eq!((&*bound.sql, bound.parameters), ("SELECT $1", values));
        assert_eq!(statements.get(&bob, id, at(2)), Err(unknown()));
        statements.close(&bob, id);
        assert!(statements.get(&alice, id, at(12)).is_ok());
        assert_eq!(statements.get(&alice, id, at(23)), Err(unknown()));
        assert_eq!(statements.bind(&alice, id, Vec::new(), at(23)), Err(unknown()));
        let id = statements.prepare(&alice, "SELECT 1", &random, at(30)).unwrap();
        statements.close(&alice, id);
        assert_eq!(statements.get(&alice, id, at(30)), Err(unknown()));
        let kept = statements.kept.lock();
        assert_eq!((kept.bytes, kept.of.len(), kept.by_owner.len()), (0, 0, 0));
    }

    #[test]
    fn limits_hold_and_what_is_idle_makes_room() {
        let random = SeededRandom::new(1);
        let owners = [Owner::of_user("a"), Owner::of_user("b")];
        let names = |statements: &Statements, owner: &Owner, sql: &str, seconds| {
            let prepared = statements.prepare(owner, sql, &random, at(seconds));
            prepared.map(drop).map_err(|problem| problem.message)
        };
        let check = |found: Result<(), String>, part: &str| {
            let found = found.unwrap_err();
            assert!(found.contains(part), "{found}");
        };
        let few = statements(1, 1000);
        names(&few, &owners[0], "x", 0).unwrap();
        check(names(&few, &owners[0], "x", 0), "statements_per_client_max");
        names(&few, &owners[1], "x", 0).unwrap();
        names(&few, &owners[0], "x", 11).unwrap();
        assert_eq!(few.kept.lock().of.len(), 1);
        let small = statements(3, 100);
        check(names(&small, &owners[0], &"x".repeat(101), 0), "statements_bytes_max");
        let id = small.prepare(&owners[0], "x", &random, at(0)).unwrap();
        let large = vec![Parameter::Text("x".repeat(100))];
        let bound = small.bind(&owners[0], id, large, at(0)).map_err(|problem| problem.message);
        check(bound, "statements_bytes_max");
        assert_eq!(small.kept.lock().bytes, 1);
        for _ in 0..2 {
            names(&small, &owners[0], "x", 0).unwrap();
        }
        check(names(&small, &owners[1], "x", 0), "statements_max");
    }
}
