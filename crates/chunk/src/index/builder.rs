//! Building the index of a chunk from its rows.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use aquifer_types::{ChunkId, Offset, Record};
use bytes::Bytes;

use super::head::{BLOCKS_MAX, Block, IndexHead, RangePlace, START, TERM_BITS_MAX, Terms};
use super::range::{self, RangeShape};
use super::term::{self, PREFIX_CHARACTERS};
use crate::fields::{Scalar, Walker, is_object};
use crate::tokens::{scan, tokens};
use crate::window::Segments;
use crate::{Error, Expected, Footer, ReadOptions, Rows};

/// The low bits of a packed occurrence: its block.
const BLOCK_BITS: u32 = 16;
/// About how many terms a range has, as a power of two.
const RANGE_TERMS_BITS: u32 = 10;

/// How an index is built.
#[derive(Debug, Clone)]
pub struct IndexOptions {
    /// A block ends at the first page of the chunk's `_value` where it has so many
    /// bytes of records.
    pub block_bytes_min: u64,
    /// By so many bits fewer than a chunk's terms would need to be told apart for
    /// sure, a term that is in no record is taken for one that is: one in
    /// `2^fingerprint_bits` is, in a chunk.
    pub fingerprint_bits: u32,
    /// Where a chunk's blocks have more terms, each counted once a block, those of
    /// fields are left out, and where that is not enough, all. Eight bytes of
    /// memory each, and as many again for those of one block.
    pub occurrences_max: usize,
    /// The most fields of a chunk whose terms are in its index.
    pub fields_max: usize,
    /// A field with more different terms has none in the index.
    pub field_terms_max: usize,
}

impl Default for IndexOptions {
    fn default() -> Self {
        Self {
            block_bytes_min: 896 << 10,
            fingerprint_bits: 10,
            occurrences_max: 32 << 20,
            fields_max: 1024,
            field_terms_max: 4096,
        }
    }
}

/// A finished index.
#[derive(Debug, Clone)]
pub struct EncodedIndex {
    /// The whole file.
    pub bytes: Bytes,
    /// The blocks of rows that it tells apart.
    pub blocks: usize,
    /// The different terms in it; `None` where there were too many.
    pub terms: Option<u64>,
    /// The bytes of the keys, headers and values that it is of.
    pub raw_bytes: u64,
}

/// Builds the index of a whole chunk, every byte of which is verified.
///
/// # Errors
/// [`Error::Damaged`], where it is another chunk than expected too;
/// [`Error::Unsupported`].
pub fn build_index(
    object: impl Into<Arc<str>>,
    file: &Bytes,
    expected: &Expected,
    options: IndexOptions,
) -> Result<EncodedIndex, Error> {
    let footer = Footer::of_file(object.into(), file)?;
    footer.check(expected)?;
    let body_end = usize::try_from(footer.grid.body_end()).unwrap_or(usize::MAX);
    footer.verify_body(0, file.get(..body_end).unwrap_or_default())?;
    let segments = Segments::new(footer.size(), vec![(0, file.clone())]);
    let mut builder = IndexBuilder::new(&footer, options);
    let (mut last, mut at) = (None, (0, 0));
    while let Some(window) = footer.window_at(at.0, at.1, &ReadOptions::default()) {
        for rows in footer.decode_rows(&window, segments.clone(), &mut last)? {
            builder.push(&rows)?;
        }
        at = (window.row_group, window.rows.end);
    }
    Ok(builder.finish())
}

/// Hashes are hashed enough.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Hashed = BuildHasherDefault<AsItIs>;

/// The terms of one block.
#[derive(Debug)]
struct BlockTerms {
    all: HashSet<u64, Hashed>,
    /// Those that came last, each in the place that its low bits say: most words
    /// are soon there again, and this is looked at much faster.
    recent: Vec<u64>,
}

const RECENT: usize = 1 << 12;

impl BlockTerms {
    fn new() -> Self {
        let mut terms = Self { all: HashSet::default(), recent: Vec::new() };
        terms.clear();
        terms
    }

    /// Adds a term; whether it is new.
    fn insert(&mut self, term: u64) -> bool {
        match self.recent.get_mut(term as usize % RECENT) {
            Some(recent) if *recent == term => return false,
            Some(recent) => *recent = term,
            None => {}
        }
        self.all.insert(term)
    }

    fn clear(&mut self) {
        self.all.clear();
        self.recent.clear();
        self.recent.resize(RECENT, 0);
        // No term is taken for one that came: 0 belongs in the first place, 1 does
        // not.
        if let Some(first) = self.recent.first_mut() {
            *first = 1;
        }
    }
}

/// One field of JSON values.
#[derive(Debug, Default)]
struct Field {
    /// The block in which each of its terms was seen last; absent where there are
    /// too many.
    seen: Option<HashMap<u64, u16, Hashed>>,
    occurrences: Vec<u64>,
    last_block: Option<u16>,
}

/// Builds an index, from all rows of a chunk in their order.
#[derive(Debug)]
pub struct IndexBuilder {
    options: IndexOptions,
    chunk: ChunkId,
    base: Offset,
    next: Offset,
    /// The rows at which pages of the chunk's `_value` begin, those ahead.
    pages: std::iter::Peekable<std::vec::IntoIter<u64>>,
    blocks: Vec<Block>,
    open: Option<Block>,
    rows: u64,
    /// The terms of the open block.
    seen: BlockTerms,
    /// Terms in their high bits, blocks in the low ones.
    occurrences: Vec<u64>,
    is_overflown: bool,
    fields: HashMap<u64, Field, Hashed>,
    has_all_fields: bool,
    walker: Walker,
}

impl IndexBuilder {
    /// A builder for the chunk with this footer.
    #[must_use]
    pub fn new(footer: &Footer, options: IndexOptions) -> Self {
        let spec = footer.spec();
        Self {
            options,
            chunk: spec.chunk_id,
            base: spec.base,
            next: spec.next,
            pages: footer.value_pages().into_iter().peekable(),
            blocks: Vec::new(),
            open: None,
            rows: 0,
            seen: BlockTerms::new(),
            occurrences: Vec::new(),
            is_overflown: false,
            fields: HashMap::default(),
            has_all_fields: true,
            walker: Walker::default(),
        }
    }

    /// Adds the rows that follow.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] where they are not behind the last one or not in the
    /// chunk.
    pub fn push(&mut self, rows: &Rows) -> Result<(), Error> {
        for record in rows.records() {
            let last = self.open.as_ref().map(|block| block.last_offset);
            let last = last.or(self.blocks.last().map(|block| block.last_offset));
            let from = last.map_or(self.base, |last| last.plus(1));
            if record.offset < from || record.offset >= self.next {
                let (offset, next) = (record.offset, self.next);
                return Err(Error::OutOfOrder { offset, from, next });
            }
            self.push_record(&record);
        }
        Ok(())
    }

    fn push_record(&mut self, record: &Record) {
        let mut is_page = false;
        while self.pages.next_if(|page| *page <= self.rows).is_some() {
            is_page = true;
        }
        let is_full = |block: &Block| block.raw_bytes >= self.options.block_bytes_min && is_page;
        // The last block there can be takes all that is left.
        if self.open.as_ref().is_some_and(is_full) && self.blocks.len() + 1 < BLOCKS_MAX {
            self.end_block();
        }
        let block = self.open.get_or_insert(Block {
            rows: self.rows..self.rows,
            raw_bytes: 0,
            first_offset: record.offset,
            last_offset: record.offset,
            min_timestamp: record.timestamp,
            max_timestamp: record.timestamp,
            is_opaque: false,
        });
        self.rows += 1;
        block.rows.end = self.rows;
        block.last_offset = record.offset;
        block.min_timestamp = block.min_timestamp.min(record.timestamp);
        block.max_timestamp = block.max_timestamp.max(record.timestamp);
        let headers = record
            .headers
            .iter()
            .flat_map(|header| [Some(&header.key), header.value.as_ref()].into_iter().flatten());
        let parts = [record.key.as_ref(), record.value.as_ref()];
        for part in parts.into_iter().flatten().chain(headers) {
            block.raw_bytes += part.len() as u64;
            add_words(part, &mut self.seen);
        }
        if self.seen.all.len() > self.options.occurrences_max {
            self.is_overflown = true;
            self.seen = BlockTerms::new();
        }
        if let Some(value) = record.value.as_ref().filter(|value| is_object(value)) {
            self.push_fields(value);
        }
    }

    fn push_fields(&mut self, value: &[u8]) {
        let block = self.blocks.len() as u16;
        let Self { walker, fields, options, seen, has_all_fields, open, .. } = self;
        let walked = walker.walk(value, |path, scalar| {
            let id = term::field(path);
            let count = fields.len();
            let field = match fields.entry(id) {
                Entry::Occupied(field) => field.into_mut(),
                Entry::Vacant(place) if count < options.fields_max => place.insert(Field::new()),
                Entry::Vacant(_) => {
                    *has_all_fields = false;
                    return;
                }
            };
            if field.last_block.replace(block) != Some(block) {
                seen.insert(id);
            }
            field.push(id, scalar, block, options.field_terms_max);
        });
        if let Some(open) = open.as_mut().filter(|_| walked.is_none()) {
            open.is_opaque = true;
        }
    }

    fn end_block(&mut self) {
        let Some(block) = self.open.take() else { return };
        let number = self.blocks.len() as u64;
        let occurrences_max = self.options.occurrences_max;
        let words = self.occurrences.len() + self.seen.all.len();
        let of_fields: usize = self.fields.values().map(|field| field.occurrences.len()).sum();
        if words + of_fields > occurrences_max {
            self.fields.values_mut().for_each(Field::leave_out);
        }
        self.is_overflown |= words > occurrences_max;
        if self.is_overflown {
            self.occurrences = Vec::new();
        } else {
            self.occurrences.extend(self.seen.all.iter().map(|term| pack(*term, number)));
        }
        self.seen.clear();
        self.blocks.push(block);
    }

    /// Ends the index.
    #[must_use]
    pub fn finish(mut self) -> EncodedIndex {
        self.end_block();
        let raw_bytes = self.blocks.iter().map(|block| block.raw_bytes).sum();
        let mut fields: Vec<(u64, bool)> =
            self.fields.iter().map(|(id, field)| (*id, field.seen.is_some())).collect();
        fields.sort_unstable();
        let mut occurrences = std::mem::take(&mut self.occurrences);
        for field in self.fields.into_values() {
            occurrences.extend(field.occurrences);
        }
        let mut bytes = START.to_vec();
        let terms = (!self.is_overflown).then(|| {
            encode_terms(occurrences, self.blocks.len(), self.options.fingerprint_bits, &mut bytes)
        });
        let mut head = IndexHead {
            object: Arc::from(""),
            size: 0,
            chunk: self.chunk,
            base: self.base,
            next: self.next,
            blocks: self.blocks,
            terms,
            fields,
            has_all_fields: self.has_all_fields,
        };
        head.size = bytes.len() as u64;
        bytes.extend(head.encode(head.size));
        EncodedIndex {
            bytes: bytes.into(),
            blocks: head.blocks.len(),
            terms: head.term_count(),
            raw_bytes,
        }
    }
}

/// The words of one part of a record, and their starts.
fn add_words(part: &[u8], seen: &mut BlockTerms) {
    tokens(part, |token| {
        if seen.insert(term::word(token.text)) {
            for start in PREFIX_CHARACTERS.iter().filter_map(|n| term::prefix(token.text, *n)) {
                seen.insert(start);
            }
        }
    });
}

impl Field {
    fn new() -> Self {
        Self { seen: Some(HashMap::default()), ..Self::default() }
    }

    fn push(&mut self, id: u64, scalar: Scalar<'_>, block: u16, terms_max: usize) {
        match scalar {
            Scalar::Number(number) => self.add(term::field_number(id, number), block, terms_max),
            Scalar::Literal(text) => self.add(term::field_token(id, text), block, terms_max),
            Scalar::Text(text) if self.seen.is_some() => scan(text, true, |token| {
                self.add(term::field_token(id, token.text), block, terms_max);
            }),
            Scalar::Text(_) => {}
        }
    }

    fn add(&mut self, term: u64, block: u16, terms_max: usize) {
        let Some(seen) = &mut self.seen else { return };
        if seen.insert(term, block) == Some(block) {
            return;
        }
        self.occurrences.push(pack(term, block.into()));
        if seen.len() > terms_max {
            self.leave_out();
        }
    }

    /// Has no terms in the index; where the field is stays known.
    fn leave_out(&mut self) {
        (self.seen, self.occurrences) = (None, Vec::new());
    }
}

const fn pack(term: u64, block: u64) -> u64 {
    term >> BLOCK_BITS << BLOCK_BITS | block
}

/// Bits that tell `count` things apart.
const fn bits_for(count: u64) -> u32 {
    u64::BITS - count.saturating_sub(1).leading_zeros()
}

/// Writes the ranges of terms behind what is in `bytes`.
fn encode_terms(
    mut occurrences: Vec<u64>,
    blocks: usize,
    fingerprint_bits: u32,
    bytes: &mut Vec<u8>,
) -> Terms {
    occurrences.sort_unstable();
    occurrences.dedup();
    let is_other = |pair: &&[u64]| pair[0] >> BLOCK_BITS != pair[1] >> BLOCK_BITS;
    let others = occurrences.windows(2).filter(is_other).count() as u64;
    let different = others + u64::from(!occurrences.is_empty());
    let term_bits = (bits_for(different) + fingerprint_bits).clamp(1, TERM_BITS_MAX);
    let range_bits = bits_for(different).saturating_sub(RANGE_TERMS_BITS).min(term_bits - 1);
    let shape = RangeShape { blocks, gap_bits: fingerprint_bits.min(TERM_BITS_MAX) };
    let mut terms = Terms {
        count: 0,
        term_bits,
        range_bits,
        gap_bits: shape.gap_bits,
        ranges: Vec::with_capacity(1 << range_bits),
    };
    let mut rest = occurrences.as_slice();
    for number in 0..1_usize << range_bits {
        let in_range = rest.partition_point(|packed| terms.place(*packed).0 <= number);
        let (own, behind) = rest.split_at(in_range);
        rest = behind;
        let mut range: Vec<(u64, Vec<u16>)> = Vec::new();
        for packed in own {
            let (_, term) = terms.place(*packed);
            let block = (*packed & ((1 << BLOCK_BITS) - 1)) as u16;
            match range.last_mut().filter(|(last, _)| *last == term) {
                Some((_, blocks)) => blocks.push(block),
                None => range.push((term, vec![block])),
            }
        }
        // Terms that the kept bits do not tell apart share their blocks.
        for (_, blocks) in &mut range {
            blocks.sort_unstable();
            blocks.dedup();
        }
        terms.count += range.len() as u64;
        let encoded = range::encode(&range, shape);
        terms.ranges.push(RangePlace {
            start: bytes.len() as u64,
            bytes: encoded.len() as u32,
            checksum: crc32c::crc32c(&encoded),
        });
        bytes.extend_from_slice(&encoded);
    }
    terms
}
