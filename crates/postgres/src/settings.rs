//! The settings of a session: what tools set, read and are told of.
//!
//! Few have an effect. Those that would change how values are written have one
//! value only, and to set another is an error rather than a surprise; a time
//! zone is accepted and changes nothing, since times are always written in UTC
//! and with their offset.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Problem, sqlstate};

/// The version of PostgreSQL that the server answers as. Clients leave out what
/// later versions have (publications, partitions, generated columns), of which
/// there is nothing here.
pub(crate) const SERVER_VERSION: &str = "9.6.24";

/// The most settings with a dot in their name that a session keeps.
const CUSTOM_MAX: usize = 64;
/// The longest value.
const VALUE_BYTES_MAX: usize = 4096;

/// What can be done with a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// It is what it is.
    Fixed,
    /// This value alone, whatever its case.
    Only(&'static str),
    /// Anything, and nothing follows from it.
    Free,
    /// Milliseconds, or a number with a unit.
    Time,
}

/// Name, default, rule, and whether clients are told of it and of its changes.
const KNOWN: &[(&str, &str, Rule, bool)] = &[
    ("application_name", "", Rule::Free, true),
    ("backslash_quote", "safe_encoding", Rule::Free, false),
    ("bytea_output", "hex", Rule::Only("hex"), false),
    ("client_encoding", "UTF8", Rule::Only("UTF8"), true),
    ("client_min_messages", "notice", Rule::Free, false),
    ("datestyle", "ISO, MDY", Rule::Only("ISO, MDY"), true),
    ("default_transaction_isolation", "read committed", Rule::Free, false),
    ("default_transaction_read_only", "on", Rule::Free, false),
    ("extra_float_digits", "1", Rule::Free, false),
    ("idle_in_transaction_session_timeout", "0", Rule::Free, false),
    ("integer_datetimes", "on", Rule::Fixed, true),
    ("intervalstyle", "postgres", Rule::Only("postgres"), true),
    ("is_superuser", "off", Rule::Fixed, true),
    ("jit", "off", Rule::Free, false),
    ("lc_collate", "C", Rule::Fixed, false),
    ("lc_ctype", "C", Rule::Fixed, false),
    ("lc_messages", "C", Rule::Free, false),
    ("lc_monetary", "C", Rule::Free, false),
    ("lc_numeric", "C", Rule::Free, false),
    ("lc_time", "C", Rule::Free, false),
    ("lock_timeout", "0", Rule::Free, false),
    ("max_identifier_length", "63", Rule::Fixed, false),
    ("max_index_keys", "32", Rule::Fixed, false),
    ("row_security", "off", Rule::Free, false),
    ("search_path", "\"$user\", public", Rule::Free, false),
    ("server_encoding", "UTF8", Rule::Fixed, true),
    ("server_version", SERVER_VERSION, Rule::Fixed, true),
    ("server_version_num", "90624", Rule::Fixed, false),
    ("session_authorization", "", Rule::Fixed, true),
    ("standard_conforming_strings", "on", Rule::Only("on"), true),
    ("statement_timeout", "0", Rule::Time, false),
    ("synchronize_seqscans", "on", Rule::Free, false),
    ("synchronous_commit", "on", Rule::Free, false),
    ("timezone", "UTC", Rule::Fixed, true),
    ("transaction_isolation", "read committed", Rule::Free, false),
    ("transaction_read_only", "on", Rule::Free, false),
    ("work_mem", "4MB", Rule::Free, false),
];

/// The settings of one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// What differs from the default.
    changed: BTreeMap<String, String>,
    /// The defaults that the startup packet brought.
    at_start: BTreeMap<String, String>,
}

impl Settings {
    /// Those of a session of `user`.
    pub(crate) fn new(user: &str) -> Self {
        let at_start = BTreeMap::from([("session_authorization".to_owned(), user.to_owned())]);
        Self { changed: BTreeMap::new(), at_start }
    }

    /// What the session falls back to from now on.
    pub(crate) fn begin(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        self.at_start.extend(changed);
    }

    /// A setting's value.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn get(&self, name: &str) -> Result<String, Problem> {
        let set = self.changed.get(name).or_else(|| self.at_start.get(name));
        match (set, find(name)) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some((_, default, ..))) => Ok((*default).to_owned()),
            (None, None) => Err(unknown(name)),
        }
    }

    /// Sets a value, or the default; true where clients are told of it.
    ///
    /// # Errors
    /// There is none of that name, or it cannot have this value.
    pub(crate) fn set(&mut self, name: &str, value: Option<&str>) -> Result<bool, Problem> {
        let Some((_, _, rule, is_told)) = find(name) else {
            return self.set_custom(name, value);
        };
        let Some(value) = value else {
            self.changed.remove(name);
            return Ok(*is_told);
        };
        check_length(name, value)?;
        match rule {
            // A time zone is every client's to ask for, and changes nothing.
            Rule::Fixed if *name == *"timezone" => return Ok(false),
            Rule::Fixed => {
                let message = format!("{name} cannot be changed");
                return Err(Problem::new(sqlstate::READ_ONLY_SETTING, message));
            }
            Rule::Only(only) => {
                return if is_same(name, only, value) {
                    Ok(false)
                } else {
                    Err(only_one(name, only, value))
                };
            }
            Rule::Time => {
                let time = parse_time(value).ok_or_else(|| {
                    let message = format!("{name} cannot be {value}");
                    Problem::new(sqlstate::INVALID_PARAMETER_VALUE, message)
                        .hint("it is a number of ms, or one with a unit of ms, s, min, h or d")
                })?;
                self.changed.insert(name.to_owned(), format!("{}ms", time.as_millis()));
            }
            Rule::Free => {
                self.changed.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(*is_told)
    }

    fn set_custom(&mut self, name: &str, value: Option<&str>) -> Result<bool, Problem> {
        if !name.contains('.') {
            return Err(unknown(name));
        }
        let Some(value) = value else {
            self.changed.remove(name);
            return Ok(false);
        };
        check_length(name, value)?;
        let customs = self.changed.keys().filter(|name| name.contains('.')).count();
        if customs >= CUSTOM_MAX && !self.changed.contains_key(name) {
            let message = format!("a session has at most {CUSTOM_MAX} settings of its own");
            return Err(Problem::new(sqlstate::LIMIT_EXCEEDED, message));
        }
        self.changed.insert(name.to_owned(), value.to_owned());
        Ok(false)
    }

    /// Sets one back, or all.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn reset(&mut self, name: Option<&str>) -> Result<bool, Problem> {
        match name {
            Some(name) => self.set(name, None),
            None => {
                self.changed.clear();
                Ok(true)
            }
        }
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let mut names: Vec<&str> = KNOWN.iter().map(|(name, ..)| *name).collect();
        names.extend(self.changed.keys().chain(self.at_start.keys()).map(String::as_str));
        names.sort_unstable();
        names.dedup();
        let value = |name: &str| (shown(name), self.get(name).unwrap_or_default());
        names.into_iter().map(value).collect()
    }

    /// Those that clients are told of.
    pub(crate) fn told(&self) -> Vec<(String, String)> {
        let told = KNOWN.iter().filter(|(_, _, _, is_told)| *is_told);
        told.map(|(name, ..)| (shown(name), self.get(name).unwrap_or_default())).collect()
    }

    /// How long a statement may run; none for no limit of the client's.
    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        let text = self.get("statement_timeout").ok()?;
        parse_time(&text).filter(|time| !time.is_zero())
    }
}

/// A setting's name as PostgreSQL writes it.
pub(crate) fn shown(name: &str) -> String {
    match name {
        "datestyle" => "DateStyle",
        "intervalstyle" => "IntervalStyle",
        "timezone" => "TimeZone",
        other => other,
    }
    .to_owned()
}

fn find(name: &str) -> Option<&'static (&'static str, &'static str, Rule, bool)> {
    KNOWN.iter().find(|(known, ..)| *known == name)
}

fn is_same(name: &str, only: &str, value: &str) -> bool {
    match name {
        // Names of the same encoding; ASCII is a part of it.
        "client_encoding" => {
            let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
            ["utf8", "unicode", "sqlascii"].contains(&plain.to_ascii_lowercase().as_str())
        }
        // The order of day and month only matters for other styles.
        "datestyle" => {
            value.split(',').next().is_some_and(|style| style.trim().eq_ignore_ascii_case("iso"))
        }
        "standard_conforming_strings" => {
            ["on", "true", "yes", "1"].contains(&value.to_ascii_lowercase().as_str())
        }
        _ => value.eq_ignore_ascii_case(only),
    }
}

fn only_one(name: &str, only: &str, value: &str) -> Problem {
    let message = format!("{} can only be {only}, not {value}", shown(name));
    Problem::new(sqlstate::INVALID_PARAMETER_VALUE, message)
}

fn unknown(name: &str) -> Problem {
    Problem::new(sqlstate::UNKNOWN_SETTING, format!("there is no setting {name}"))
}

fn check_length(name: &str, value: &str) -> Result<(), Problem> {
    if name.len().max(value.len()) <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let message = format!("a setting has at most {VALUE_BYTES_MAX} bytes");
    Err(Problem::new(sqlstate::PROGRAM_LIMIT, message))
}

/// A time as PostgreSQL takes it: ms, or a number with a unit.
fn parse_time(text: &str) -> Option<Duration> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let ms = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_or_refused() {
        let mut settings = Settings::new("alice");
        let mut check = |name: &str, value: &str, expected: Result<&str, &str>| {
            let set = settings.set(name, Some(value)).and_then(|_| settings.get(name));
            let found = set.as_deref().map_err(|problem| problem.sqlstate.as_str());
            assert_eq!(found, expected, "{name} = {value}");
        };
        check("application_name", "psql", Ok("psql"));
        check("client_encoding", "unicode", Ok("UTF8"));
        check("client_encoding", "'UTF-8'", Ok("UTF8"));
        check("client_encoding", "LATIN1", Err(sqlstate::INVALID_PARAMETER_VALUE));
        check("datestyle", "iso, dmy", Ok("ISO, MDY"));
        check("datestyle", "german", Err(sqlstate::INVALID_PARAMETER_VALUE));
        check("timezone", "Europe/Berlin", Ok("UTC"));
        check("server_version", "17", Err(sqlstate::READ_ONLY_SETTING));
        check("nothing_known", "1", Err(sqlstate::UNKNOWN_SETTING));
        check("app.user", "7", Ok("7"));
        check("statement_timeout", "5s", Ok("5000ms"));
        check("statement_timeout", "soon", Err(sqlstate::INVALID_PARAMETER_VALUE));
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(5)));
        for at in 0..CUSTOM_MAX {
            settings.set(&format!("x.{at}"), Some("1")).unwrap_or_default();
        }
        let full = settings.set("x.more", Some("1")).unwrap_err();
        assert_eq!(full.sqlstate, sqlstate::LIMIT_EXCEEDED);
        settings.reset(None).unwrap();
        assert_eq!(settings.get("application_name").as_deref(), Ok(""));
        assert_eq!(settings.statement_timeout(), None);
        assert_eq!(settings.get("session_authorization").as_deref(), Ok("alice"));
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(KNOWN.is_sorted_by_key(|(name, ..)| *name));
        let told = Settings::new("a").told();
        assert!(told.contains(&("TimeZone".to_owned(), "UTC".to_owned())));
    }
}
