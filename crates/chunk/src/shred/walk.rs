//! Which fields values have, and of what kind each is.
//!
//! Everything is bounded: so many paths are known at once, and an object whose
//! names turn out to be data is forgotten but for that. Where paths had to be
//! passed over, the schema that comes of it is closed, since a version promises
//! that nothing else occurred.

use aquifer_types::{FieldKind, NewField, SCHEMA_DEPTH_MAX, SCHEMA_FIELDS_MAX, StreamSchema};

use super::json::{Json, Literal, NESTING_MAX};
use super::names::{Found, Last, Names};
use crate::fields::is_object;

/// The most paths that are known at once.
const PATHS_MAX: usize = 4 * SCHEMA_FIELDS_MAX;
/// An object with more names than this may have data for names.
const NAMES_MAX: usize = 64;
/// It has, where most of its names occur in less than this part of it.
const RARE_PERCENT: u64 = 5;
/// With so many names, those that occurred once are rare as well, however few
/// the object's occurrences, from this many on.
const MANY_NAMES: usize = 256;
const OCCURRENCES_MIN: u64 = 4;
/// After so many of them an object is taken for what it is so far.
const OCCURRENCES_PLAIN: u64 = 400;

const TOP: u32 = 0;

/// What a value can be, as far as a kind depends on it; nulls count for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Boolean,
    Whole,
    Number,
    Text,
    Object,
    Array,
}

const SHAPES: usize = 6;

/// Looks at values and says which fields a schema that holds them would have.
#[derive(Debug)]
pub struct FieldWalk {
    /// The first is the value itself; a parent comes before what is below it.
    nodes: Vec<Node>,
    /// What the value that is being looked at has.
    seen: Vec<(u32, Shape)>,
    /// The nodes below which that value had no room, and whether an earlier one
    /// had none there. A node may be in it several times.
    cut: Vec<(u32, bool)>,
    scratch: Vec<u8>,
    /// Whether nothing is looked for, because nothing can be added.
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Node {
    parent: u32,
    depth: usize,
    name: String,
    names: Names,
    /// How often it was each [`Shape`].
    counts: [u64; SHAPES],
    /// What it is in the schema that the walk began with.
    known: Option<FieldKind>,
    /// Whether its names are data.
    is_data: bool,
    /// Whether something below it was passed over.
    is_cut: bool,
}

impl Default for FieldWalk {
    fn default() -> Self {
        Self::new()
    }
}

impl FieldWalk {
    /// A walk that knows no field yet.
    #[must_use]
    pub fn new() -> Self {
        Self::under(&StreamSchema::default())
    }

    /// A walk that looks for what this schema has not: values of fields that it
    /// has are passed over.
    #[must_use]
    pub fn under(schema: &StreamSchema) -> Self {
        let mut nodes = vec![Node::default()];
        let fields = schema.fields();
        for field in fields {
            let above = |id: i32| fields.binary_search_by_key(&id, |field| field.id).ok();
            let parent = field.parent.and_then(above).map_or(TOP, |at| at as u32 + 1);
            add_node(&mut nodes, parent, &field.name, Some(field.kind));
        }
        Self {
            nodes,
            seen: Vec::new(),
            cut: Vec::new(),
            scratch: Vec::new(),
            is_closed: schema.is_closed(),
        }
    }

    /// Looks at one value. What is no JSON object is passed over.
    pub fn look(&mut self, value: Option<&[u8]>) {
        let Some(bytes) = value.filter(|bytes| !self.is_closed && is_object(bytes)) else { return };
        let known = self.nodes.len();
        self.seen.clear();
        self.cut.clear();
        let mut json = Json::new(bytes);
        let is_json = std::str::from_utf8(bytes).is_ok()
            && json.expect(b'{').is_some()
            && self.object(&mut json, TOP, 1).is_some()
            && json.is_at_end();
        if !is_json {
            // What is no JSON has no fields.
            for (at, was_cut) in self.cut.drain(..).rev() {
                if let Some(node) = self.nodes.get_mut(at as usize) {
                    node.is_cut = was_cut;
                }
            }
            while self.nodes.len() > known {
                let parent = self.nodes.pop().map(|node| node.parent);
                if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(parent as usize))
                {
                    parent.names.pop();
                }
            }
            return;
        }
        for (node, shape) in &self.seen {
            if let Some(node) = self.nodes.get_mut(*node as usize) {
                node.counts[*shape as usize] += 1;
            }
        }
        // Without room no node is added any more, but names turn out to be data.
        // The room is for later values: what this one had none for was passed
        // over, and stays so.
        if self.nodes.len() > known || !self.cut.is_empty() {
            self.forget_data();
        }
    }

    /// Whether [`FieldWalk::extend`] gives another schema than this one.
    #[must_use]
    pub fn outgrows(&self, schema: &StreamSchema) -> bool {
        let is_new = |node: &Node| node.known.is_none() && node.occurrences() > 0;
        let has_found = self.nodes.iter().any(|node| node.is_cut || is_new(node));
        (has_found || schema.version() == 0) && self.extend(schema) != *schema
    }

    /// The schema's next version, with all that was found; the same where nothing
    /// is new.
    #[must_use]
    pub fn extend(&self, schema: &StreamSchema) -> StreamSchema {
        let next = schema.extended(&self.new_fields(schema));
        if self.is_cut(schema) { next.closed() } else { next }
    }

    /// The fields that were found and are not in `schema`, those first that most
    /// values have.
    #[must_use]
    pub fn new_fields(&self, schema: &StreamSchema) -> Vec<NewField> {
        let mut found: Vec<(u64, NewField)> = Vec::new();
        self.visit(schema, |node, path, kind| {
            let is_new = node.known.is_none() && schema.find(path).is_none();
            if let Some(kind) = kind.filter(|_| is_new) {
                let path = path.to_vec();
                found.push((node.occurrences(), NewField { path, kind, is_declared: false }));
            }
        });
        found.sort_by(|(a_count, a), (b_count, b)| {
            b_count.cmp(a_count).then_with(|| a.path.cmp(&b.path))
        });
        found.into_iter().map(|(_, field)| field).collect()
    }

    /// Whether something was passed over that might have been a field.
    fn is_cut(&self, schema: &StreamSchema) -> bool {
        let mut is_cut = false;
        self.visit(schema, |node, path, kind| {
            let is_object = node.depth == 0 || kind == Some(FieldKind::Object);
            // Another walk may have had it for an object with fields.
            let was_object = node.is_data
                && schema.find(path).is_some_and(|field| field.kind == FieldKind::Object);
            is_cut |= (node.is_cut && is_object) || was_object;
        });
        is_cut
    }

    /// Calls `each` with every node that is not below what is no object, with
    /// its path and its kind.
    fn visit(
        &self,
        schema: &StreamSchema,
        mut each: impl FnMut(&Node, &[String], Option<FieldKind>),
    ) {
        let mut path = Vec::new();
        let mut waiting = vec![TOP];
        while let Some(node) = waiting.pop().and_then(|at| self.nodes.get(at as usize)) {
            path.truncate(node.depth.saturating_sub(1));
            if node.depth > 0 {
                path.push(node.name.clone());
            }
            let in_schema = || schema.find(&path).map(|field| field.kind);
            let kind = node.known.or_else(in_schema).or_else(|| self.kind(node));
            each(node, &path, kind);
            if node.depth == 0 || kind == Some(FieldKind::Object) {
                waiting.extend(node.names.targets());
            }
        }
    }

    /// What a field would be; `None` where it only was null.
    fn kind(&self, node: &Node) -> Option<FieldKind> {
        let count = |shape: Shape| node.counts[shape as usize];
        let numbers = count(Shape::Whole) + count(Shape::Number);
        let number_kind =
            if count(Shape::Number) == 0 { FieldKind::Int64 } else { FieldKind::Float64 };
        let object_kind =
            if self.has_data_names(node) { FieldKind::Opaque } else { FieldKind::Object };
        // Of the equally frequent the first.
        let mut best: (u64, Option<FieldKind>) = (0, None);
        for (count, kind) in [
            (count(Shape::Text), FieldKind::Text),
            (numbers, number_kind),
            (count(Shape::Object), object_kind),
            (count(Shape::Boolean), FieldKind::Boolean),
            (count(Shape::Array), FieldKind::Opaque),
        ] {
            if count > best.0 {
                best = (count, Some(kind));
            }
        }
        best.1
    }

    fn has_data_names(&self, node: &Node) -> bool {
        if node.is_data {
            return true;
        }
        if node.names.len() <= NAMES_MAX || node.depth == 0 || node.known.is_some() {
            return false;
        }
        let occurrences = node.counts[Shape::Object as usize];
        let is_early = node.names.len() >= MANY_NAMES && occurrences >= OCCURRENCES_MIN;
        let is_rare = |at: &u32| {
            let count = self.nodes.get(*at as usize).map_or(0, Node::occurrences);
            count * 100 < occurrences * RARE_PERCENT || (is_early && count <= 1)
        };
        node.names.targets().filter(is_rare).count() * 2 > node.names.len()
    }

    /// Whether it is plain that an object's names are data before all was seen.
    fn is_to_forget(&self, node: &Node) -> bool {
        let occurrences = node.counts[Shape::Object as usize];
        let is_plain = node.names.len() >= MANY_NAMES || occurrences >= OCCURRENCES_PLAIN;
        is_plain && node.names.len() > NAMES_MAX && self.has_data_names(node)
    }

    /// Forgets what is below objects whose names are data, so that there is room
    /// for fields.
    fn forget_data(&mut self) {
        let are_data: Vec<bool> = self.nodes.iter().map(|node| self.is_to_forget(node)).collect();
        if !are_data.contains(&true) {
            return;
        }
        let mut places = vec![u32::MAX; self.nodes.len()];
        let mut kept: Vec<Node> = Vec::with_capacity(self.nodes.len());
        for (at, mut node) in std::mem::take(&mut self.nodes).into_iter().enumerate() {
            let above = node.parent as usize;
            let is_below_data = at > 0
                && (are_data.get(above) == Some(&true) || places.get(above) == Some(&u32::MAX));
            if is_below_data {
                continue;
            }
            if are_data.get(at) == Some(&true) {
                node.is_data = true;
                node.is_cut = false;
                node.names = Names::default();
            }
            if let Some(place) = places.get_mut(at) {
                *place = kept.len() as u32;
            }
            node.parent = places.get(above).copied().unwrap_or(TOP);
            kept.push(node);
        }
        for node in &mut kept {
            node.names.rename(|at| places.get(at as usize).copied().unwrap_or(TOP));
        }
        self.nodes = kept;
    }

    /// Reads an object from behind its `{` on; `None` where it is no JSON.
    fn object(&mut self, json: &mut Json<'_>, at: u32, nesting: usize) -> Option<()> {
        let mut last = Last::default();
        let mut is_first = true;
        while json.next_name(is_first)? {
            is_first = false;
            let node = self.nodes.get_mut(at as usize)?;
            let found = node.names.next(json, &mut last, &mut self.scratch)?;
            json.expect(b':')?;
            let child = match found {
                Found::Known(child) => Some(child),
                Found::Unknown { is_text: true } if json.peek()? != b'n' => self.add(at),
                Found::Unknown { .. } => None,
            };
            match child {
                Some(child) => self.value(json, child, nesting)?,
                None => json.skip(nesting)?,
            }
        }
        Some(())
    }

    /// Reads the value of a node; `None` where it is no JSON.
    #[inline]
    fn value(&mut self, json: &mut Json<'_>, at: u32, nesting: usize) -> Option<()> {
        let node = self.nodes.get(at as usize)?;
        if node.known.is_some_and(|kind| kind != FieldKind::Object) {
            return json.skip(nesting);
        }
        let shape = match json.peek()? {
            b'"' => {
                json.text()?;
                Shape::Text
            }
            b'{' => {
                self.seen.push((at, Shape::Object));
                if node.is_data || node.depth >= SCHEMA_DEPTH_MAX {
                    return json.skip(nesting);
                }
                if nesting >= NESTING_MAX {
                    return None;
                }
                json.expect(b'{')?;
                return self.object(json, at, nesting + 1);
            }
            b'[' => {
                json.skip(nesting)?;
                Shape::Array
            }
            b't' | b'f' | b'n' => match json.literal()? {
                Literal::Null => return Some(()),
                Literal::True | Literal::False => Shape::Boolean,
            },
            _ => match json.number()?.to_i64() {
                Some(_) => Shape::Whole,
                None => Shape::Number,
            },
        };
        self.seen.push((at, shape));
        Some(())
    }

    /// Adds what `scratch` names below a node, where it can be a field.
    fn add(&mut self, parent: u32) -> Option<u32> {
        let name = std::str::from_utf8(&self.scratch).ok();
        let name = name.filter(|name| StreamSchema::is_name(name))?;
        if self.nodes.len() > PATHS_MAX {
            let node = self.nodes.get_mut(parent as usize)?;
            if self.cut.last().is_none_or(|(at, _)| *at != parent) {
                self.cut.push((parent, node.is_cut));
            }
            node.is_cut = true;
            return None;
        }
        Some(add_node(&mut self.nodes, parent, name, None))
    }
}

impl Node {
    /// How often it was not null.
    fn occurrences(&self) -> u64 {
        self.counts.iter().sum()
    }
}

fn add_node(nodes: &mut Vec<Node>, parent: u32, name: &str, known: Option<FieldKind>) -> u32 {
    let at = nodes.len() as u32;
    let mut depth = 1;
    if let Some(parent) = nodes.get_mut(parent as usize) {
        parent.names.add(name.as_bytes(), at);
        depth = parent.depth + 1;
    }
    nodes.push(Node { parent, depth, name: name.to_owned(), known, ..Node::default() });
    at
}
