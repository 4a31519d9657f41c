//! Which topics members mean, by name or by a regular expression.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_types::StreamId;
use regex::bytes::{Regex, RegexBuilder};

use super::Member;

/// The longest regular expression.
const REGEX_BYTES_MAX: usize = 4096;
/// The most memory of one that is compiled, and of the cache of its matches.
const REGEX_COMPILED_BYTES_MAX: usize = 256 << 10;
/// How deep groups may lie in each other.
const REGEX_NESTED_MAX: u32 = 64;

/// A topic that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) id: StreamId,
    pub(crate) partitions: u32,
}

/// The topics that there are, as whoever asks may see them.
pub(crate) trait Topics {
    /// Differs where a topic came, grew or went.
    fn version(&self) -> u64;
    /// The topic of this name.
    fn find(&self, name: &str) -> Option<Topic>;
    /// The names that a regular expression may match.
    fn names(&self) -> Vec<String>;
}

/// A regular expression that matches whole names. Names are ASCII, and so are
/// its classes, as in RE2.
fn compile(regex: &str) -> Option<Regex> {
    if regex.len() > REGEX_BYTES_MAX {
        return None;
    }
    // Compiled by itself first: what is put around it could make sense of an
    // expression that has none, such as `a)(b`.
    let build = |text: &str| {
        RegexBuilder::new(text)
            .unicode(false)
            .size_limit(REGEX_COMPILED_BYTES_MAX)
            .dfa_size_limit(REGEX_COMPILED_BYTES_MAX)
            .nest_limit(REGEX_NESTED_MAX)
            .build()
            .ok()
    };
    build(regex)?;
    build(&format!("^(?:{regex})$"))
}

/// Whether it is a regular expression that is taken.
pub(crate) fn is_regex(regex: &str) -> bool {
    compile(regex).is_some()
}

/// What members' subscriptions mean, as of one version of the topics.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolved {
    /// The version that was looked at; none where it has to be looked again.
    seen: Option<u64>,
    /// What exists of all that is subscribed to.
    topics: BTreeMap<String, Topic>,
    /// What each regular expression matches.
    matches: BTreeMap<String, BTreeSet<String>>,
    hash: u64,
}

impl Resolved {
    /// Nothing is known but the hash of what was.
    pub(super) fn stored(hash: u64) -> Self {
        Self { hash, ..Self::default() }
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether nothing has changed since.
    pub(super) fn is_of(&self, topics: &dyn Topics) -> bool {
        self.seen == Some(topics.version())
    }

    pub(super) const fn forget(&mut self) {
        self.seen = None;
    }

    /// Looks everything up anew; whether something is not as it was.
    pub(super) fn look_up(
        &mut self,
        members: &BTreeMap<String, Member>,
        topics: &dyn Topics,
    ) -> bool {
        // Asked first: what changes meanwhile is looked at again.
        let seen = Some(topics.version());
        let regexes: BTreeSet<&String> =
            members.values().filter_map(|member| member.regex.as_ref()).collect();
        let names = if regexes.is_empty() { Vec::new() } else { topics.names() };
        let matches = regexes.into_iter().map(|text| {
            let regex = compile(text);
            let is_match = |name: &&String| {
                regex.as_ref().is_some_and(|regex| regex.is_match(name.as_bytes()))
            };
            (text.clone(), names.iter().filter(is_match).cloned().collect())
        });
        let mut fresh = Self { seen, matches: matches.collect(), ..Self::default() };
        let names: BTreeSet<&str> =
            members.values().flat_map(|member| fresh.names_of(member)).collect();
        let found =
            names.into_iter().filter_map(|name| Some((name.to_owned(), topics.find(name)?)));
        fresh.topics = found.collect();
        fresh.hash = fresh.hashed();
        let was = std::mem::replace(self, fresh);
        // One that was not looked up before is new with its member, or a restart
        // has forgotten what it matched.
        let is_other = |(regex, matched)| self.matches.get(regex).is_some_and(|of| of != matched);
        was.hash != self.hash || was.matches.iter().any(is_other)
    }

    /// The names that a member subscribes to, whether they exist or not.
    pub(super) fn names_of<'a>(
        &'a self,
        member: &'a Member,
    ) -> impl Iterator<Item = &'a str> + use<'a> {
        let matched = member.regex.as_ref().and_then(|regex| self.matches.get(regex));
        member.names.iter().chain(matched.into_iter().flatten()).map(String::as_str)
    }

    /// The topics of a member's subscription.
    pub(super) fn topics_of(&self, member: &Member) -> BTreeMap<StreamId, u32> {
        let topics = self.names_of(member).filter_map(|name| self.topics.get(name));
        topics.map(|topic| (topic.id, topic.partitions)).collect()
    }

    /// The same for the same topics, on every start: FNV-1a.
    fn hashed(&self) -> u64 {
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        let by_id: BTreeMap<StreamId, u32> =
            self.topics.values().map(|topic| (topic.id, topic.partitions)).collect();
        by_id.iter().fold(BASIS, |hash, (id, partitions)| {
            id.as_bytes().iter().chain(&partitions.to_be_bytes()).fold(hash, fold)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_are_matched() {
        let check = |regex, name: &str, expected| {
            let compiled = compile(regex).unwrap();
            assert_eq!(compiled.is_match(name.as_bytes()), expected, "{regex} {name}");
        };
        check("a.*", "abc", true);
        check("a", "abc", false);
        check("b", "abc", false);
        check("a|abc", "abc", true);
        check("(?i)ABC", "abc", true);
        check(r"\w+-\d{2}", "log-07", true);
        check("", "", true);
    }

    #[test]
    fn what_is_no_expression_or_too_large_is_refused() {
        let long = "a".repeat(REGEX_BYTES_MAX + 1);
        let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        for bad in ["(", "a)(b", "[", r"(a)\1", "a{1000}{1000}{1000}", &long, &deep] {
            assert!(!is_regex(bad), "{bad}");
        }
    }
}
