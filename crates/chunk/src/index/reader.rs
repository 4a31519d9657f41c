//! Asking an index.

use std::collections::BTreeMap;
use std::sync::Arc;

use aquifer_types::ChunkId;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::head::{Block, IndexHead, RangePlace, TRAILER_BYTES, Trailer};
use super::range;
use super::term::{Lookup, TermQuery};
use super::{BlockSet, START};
use crate::footer::fetch;
use crate::{Error, RangeRead};

/// The most parts of one index that are read at once.
const READS_MAX: usize = 8;

/// The first read of an index fetches this many of its last bytes: the head of
/// most.
const HEAD_READ_BYTES: u64 = 16 << 10;

/// What an index says of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// Every record that answers the query is in one of these blocks.
    pub blocks: BlockSet,
    /// Whether the index had something to say; if not, the blocks are all of
    /// them.
    pub is_known: bool,
}

/// An open index. Cloning is cheap.
#[derive(Clone)]
pub struct IndexReader {
    source: Arc<dyn RangeRead>,
    head: Arc<IndexHead>,
}

impl std::fmt::Debug for IndexReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexReader").field("object", &self.head.object).finish_non_exhaustive()
    }
}

impl IndexReader {
    /// Opens the index `object`, by one read or two, and checks that it is that
    /// of `chunk`.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Damaged`], [`Error::Unsupported`].
    pub async fn open(
        source: Arc<dyn RangeRead>,
        object: impl Into<Arc<str>>,
        chunk: ChunkId,
    ) -> Result<Self, Error> {
        let object = object.into();
        let size = source.size();
        let last_start = size.saturating_sub(HEAD_READ_BYTES);
        let last = fetch(&*source, &object, last_start..size).await?;
        let trailer = Trailer::read(&object, size, &last)?;
        let end = trailer.start + u64::from(trailer.bytes);
        let bytes = match trailer.start.checked_sub(last_start) {
            Some(start) => {
                let (start, end) = (start as usize, last.len() - TRAILER_BYTES);
                last.slice(start.min(end)..end)
            }
            None => fetch(&*source, &object, trailer.start..end).await?,
        };
        trailer.verify(&object, &bytes)?;
        let head = IndexHead::decode(&object, size, trailer.start, &bytes)?;
        if head.chunk != chunk {
            let why = format!("it is the index of {}, expected was that of {chunk}", head.chunk);
            return Err(Error::damaged(&object, why));
        }
        Ok(Self { source, head: Arc::new(head) })
    }

    /// Opens an index whose head is known already.
    #[must_use]
    pub fn with_head(source: Arc<dyn RangeRead>, head: Arc<IndexHead>) -> Self {
        Self { source, head }
    }

    /// The index's head, for a cache.
    #[must_use]
    pub const fn head(&self) -> &Arc<IndexHead> {
        &self.head
    }

    /// The runs of rows that it tells apart, in the order of offsets.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        self.head.blocks()
    }

    /// Which blocks may have records that answer `query`. Reads a few KiB for
    /// each term, some of them at once.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Damaged`].
    pub async fn find(&self, query: &TermQuery) -> Result<Candidates, Error> {
        let mut wanted = BTreeMap::new();
        self.collect(query, &mut wanted);
        let reads = wanted.into_iter().map(|(number, place)| async move {
            let bytes = self.read(place).await?;
            Ok::<_, Error>((number, bytes))
        });
        let ranges: BTreeMap<usize, Bytes> =
            futures::stream::iter(reads).buffer_unordered(READS_MAX).try_collect().await?;
        self.answer(query, &ranges)
    }

    async fn read(&self, place: RangePlace) -> Result<Bytes, Error> {
        let object = &self.head.object;
        let span = place.start..place.start + u64::from(place.bytes);
        let bytes = fetch(&*self.source, object, span.clone()).await?;
        if crc32c::crc32c(&bytes) != place.checksum {
            let why = format!(
                "bytes {} to {}, a range of terms, do not match their CRC-32C",
                span.start, span.end
            );
            return Err(Error::damaged(object, why));
        }
        Ok(bytes)
    }

    /// The ranges that are needed for an answer.
    fn collect(&self, query: &TermQuery, wanted: &mut BTreeMap<usize, RangePlace>) {
        match query {
            TermQuery::All(parts) | TermQuery::Any(parts) => {
                parts.iter().for_each(|part| self.collect(part, wanted));
            }
            leaf => {
                let Some(terms) = &self.head.terms else { return };
                let Some(term) = self.term_of(leaf.lookup()) else { return };
                let (number, _) = terms.place(term);
                wanted.extend(terms.ranges.get(number).map(|place| (number, *place)));
            }
        }
    }

    /// The term to be looked up; none where the head answers.
    fn term_of(&self, lookup: Lookup) -> Option<u64> {
        match lookup {
            Lookup::Unknown => None,
            Lookup::Term(term) => Some(term),
            Lookup::Field(field, term) => {
                let fields = &self.head.fields;
                let at = fields.binary_search_by_key(&field, |(known, _)| *known).ok()?;
                let has_terms = fields.get(at).is_some_and(|(_, has_terms)| *has_terms);
                Some(term.filter(|_| has_terms).unwrap_or(field))
            }
        }
    }

    fn answer(
        &self,
        query: &TermQuery,
        ranges: &BTreeMap<usize, Bytes>,
    ) -> Result<Candidates, Error> {
        let count = self.blocks().len();
        match query {
            TermQuery::All(parts) => {
                let mut all = Candidates { blocks: BlockSet::all(count), is_known: false };
                for part in parts {
                    let part = self.answer(part, ranges)?;
                    all.blocks.intersect(&part.blocks);
                    all.is_known |= part.is_known;
                }
                Ok(all)
            }
            TermQuery::Any(parts) => {
                let mut any = Candidates { blocks: BlockSet::none(count), is_known: true };
                for part in parts {
                    let part = self.answer(part, ranges)?;
                    any.blocks.union(&part.blocks);
                    any.is_known &= part.is_known;
                }
                Ok(any)
            }
            leaf => self.answer_leaf(leaf.lookup(), ranges),
        }
    }

    fn answer_leaf(
        &self,
        lookup: Lookup,
        ranges: &BTreeMap<usize, Bytes>,
    ) -> Result<Candidates, Error> {
        let count = self.blocks().len();
        let unknown = || Candidates { blocks: BlockSet::all(count), is_known: false };
        let Some(terms) = &self.head.terms else { return Ok(unknown()) };
        let is_field = matches!(lookup, Lookup::Field(..));
        let mut blocks = match self.term_of(lookup) {
            Some(term) => {
                let (number, term) = terms.place(term);
                let Some(bytes) = ranges.get(&number) else { return Ok(unknown()) };
                range::find(bytes, term, self.head.shape()).ok_or_else(|| {
                    let why = format!("range {number} of its terms is malformed");
                    Error::damaged(&self.head.object, why)
                })?
            }
            // No record has the field.
            None if is_field && self.head.has_all_fields => BlockSet::none(count),
            None => return Ok(unknown()),
        };
        if is_field {
            let opaque = self.blocks().iter().enumerate().filter(|(_, block)| block.is_opaque);
            opaque.for_each(|(at, _)| blocks.insert(at));
        }
        Ok(Candidates { blocks, is_known: true })
    }
}

/// What a sound index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexReport {
    /// The chunk that it is the index of.
    pub chunk: ChunkId,
    /// How many blocks it tells apart.
    pub blocks: usize,
    /// How many terms it has.
    pub terms: Option<u64>,
}

/// Checks every byte of an index.
///
/// # Errors
/// [`Error::Damaged`] names the first thing that does not hold;
/// [`Error::Unsupported`].
pub fn verify_index(object: impl Into<Arc<str>>, file: &Bytes) -> Result<IndexReport, Error> {
    let object = object.into();
    let size = file.len() as u64;
    if !file.starts_with(&START) {
        return Err(Error::damaged(&object, "it does not begin as an index does"));
    }
    let trailer = Trailer::read(&object, size, file)?;
    let (start, end) = (trailer.start as usize, file.len() - TRAILER_BYTES);
    let bytes = file.slice(start.min(end)..end);
    trailer.verify(&object, &bytes)?;
    let head = IndexHead::decode(&object, size, trailer.start, &bytes)?;
    let mut count = 0;
    if let Some(terms) = &head.terms {
        for (number, place) in terms.ranges.iter().enumerate() {
            let start = place.start as usize;
            let bytes = file.get(start..start.saturating_add(place.bytes as usize));
            let bytes = bytes.filter(|bytes| crc32c::crc32c(bytes) == place.checksum);
            let found = bytes.and_then(|bytes| range::verify(bytes, head.shape()));
            count += found.ok_or_else(|| {
                Error::damaged(&object, format!("range {number} of its terms is damaged"))
            })?;
        }
        if count != terms.count {
            let why = format!("it has {count} terms, its head says {}", terms.count);
            return Err(Error::damaged(&object, why));
        }
    } else if trailer.start != START.len() as u64 {
        return Err(Error::damaged(&object, "bytes that belong to nothing are in it"));
    }
    Ok(IndexReport { chunk: head.chunk, blocks: head.blocks.len(), terms: head.term_count() })
}
