//! The names that are known below one object.
//!
//! Most objects have their names in the order of the one before, so the name
//! that followed last time is compared first, without a search for its end.

use std::collections::HashMap;

use super::json::Json;

const NONE: u32 = u32::MAX;

/// Names, each with what its owner calls it.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: Vec<Box<[u8]>>,
    targets: Vec<u32>,
    by_name: HashMap<Box<[u8]>, u32>,
    /// Which name came behind each one last time; in the first place, which
    /// came first.
    followers: Vec<u32>,
}

/// A name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// What its owner calls it.
    Known(u32),
    /// Not one of these; whether it is text at all.
    Unknown { is_text: bool },
}

/// Where an object is among its names.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Last(usize);

impl Names {
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = u32> + '_ {
        self.targets.iter().copied()
    }

    pub(super) fn add(&mut self, name: &[u8], target: u32) {
        let place = self.names.len() as u32;
        self.names.push(name.into());
        self.targets.push(target);
        self.by_name.insert(name.into(), place);
        self.followers.resize(self.names.len() + 1, NONE);
    }

    /// Takes back what was added last.
    pub(super) fn pop(&mut self) {
        if let Some(name) = self.names.pop() {
            self.targets.pop();
            self.by_name.remove(&name);
            self.followers.clear();
            self.followers.resize(self.names.len() + 1, NONE);
        }
    }

    /// Calls everything otherwise.
    pub(super) fn rename(&mut self, target_of: impl Fn(u32) -> u32) {
        for target in &mut self.targets {
            *target = target_of(*target);
        }
    }

    /// Reads the name that begins here. Where it is unknown, `scratch` has its
    /// text. `None` where it is no JSON.
    #[inline]
    pub(super) fn next(
        &mut self,
        json: &mut Json<'_>,
        last: &mut Last,
        scratch: &mut Vec<u8>,
    ) -> Option<Found> {
        let guess = self.followers.get(last.0).copied().unwrap_or(NONE) as usize;
        if let (Some(name), Some(target)) = (self.names.get(guess), self.targets.get(guess))
            && json.take_name(name)
        {
            last.0 = guess + 1;
            return Some(Found::Known(*target));
        }
        let text = json.text()?;
        scratch.clear();
        if !text.has_escapes {
            scratch.extend_from_slice(text.raw);
        } else if !text.unescape(scratch) {
            return Some(Found::Unknown { is_text: false });
        }
        let Some(place) = self.by_name.get(scratch.as_slice()).copied() else {
            return Some(Found::Unknown { is_text: true });
        };
        // What is written with an escape is not to be guessed by its bytes.
        let is_plain = !scratch.iter().any(|byte| matches!(byte, b'"' | b'\\'));
        if let Some(follower) = self.followers.get_mut(last.0).filter(|_| is_plain) {
            *follower = place;
        }
        last.0 = place as usize + 1;
        self.targets.get(place as usize).map(|target| Found::Known(*target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_however_it_is_written_and_in_any_order() {
        let mut names = Names::default();
        for (target, name) in ["a", "ab", "a\"", "é", "b\\"].iter().enumerate() {
            names.add(name.as_bytes(), target as u32 + 10);
        }
        let mut check = |object: &str, expected: &[Option<u32>]| {
            let mut json = Json::new(object.as_bytes());
            json.expect(b'{').unwrap();
            let (mut found, mut last, mut is_first) = (Vec::new(), Last::default(), true);
            while json.next_name(is_first).unwrap() {
                is_first = false;
                found.push(match names.next(&mut json, &mut last, &mut Vec::new()).unwrap() {
                    Found::Known(target) => Some(target),
                    Found::Unknown { .. } => None,
                });
                json.expect(b':').unwrap();
                json.skip(1).unwrap();
            }
            assert_eq!(found, expected, "{object}");
        };
        for _ in 0..2 {
            check(r#"{"a":1,"ab":2,"é":3}"#, &[Some(10), Some(11), Some(13)]);
            check(r#"{"é":1,"a":2,"abc":0,"ab":3}"#, &[Some(13), Some(10), None, Some(11)]);
            check(r#"{"a\"":1,"\u0061":2,"\ud800":3}"#, &[Some(12), Some(10), None]);
            check(r#"{"b\\":1,"b\\\\":2,"a\\":3}"#, &[Some(14), None, None]);
        }
    }
}
