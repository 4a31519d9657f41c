//! Answers to searches and histograms.
//!
//! `aquifer_search` has the language and the order in which parts of a stream
//! are read; this module gives it one cut to read, holds the limits, and hands
//! the answer on. No statement is planned and no operator is built.

mod indexes;
mod rows;
mod source;

use std::sync::Arc;
use std::time::Duration;

use aquifer_query::wire::{Refusal, Spent};
use aquifer_query::{EngineOptions, HistogramQuestion, Question, SearchQuestion, TimeRange};
use aquifer_search::Query;
use aquifer_search::run::{
    Bars, Cursor, Failure, HistogramRequest, RunOptions, SearchRequest, histogram, search,
};
use aquifer_types::{ErrorKind, Timestamp};
use tokio::sync::watch;

pub(crate) use indexes::IndexAccess;
use source::CutSource;

use crate::answer::Sink;
use crate::link::Link;
use crate::refusal::{internal, invalid, refusal};
use crate::{Error, Reads, Usage};

/// The most hits of one page.
const HITS_MAX: u64 = 10_000;
/// The most bars of a histogram.
const BARS_MAX: u32 = 10_000;
/// The most fields whose values are counted, and the most values of each.
const TOP_FIELDS_MAX: usize = 16;
const TOP_VALUES_MAX: u32 = 1_000;

/// What searches share with everything else of the process.
pub(crate) struct Searches<'a> {
    pub(crate) options: &'a EngineOptions,
    pub(crate) reads: Reads,
    pub(crate) indexes: Arc<IndexAccess>,
    pub(crate) link: Arc<Link>,
    /// What relative times are counted from.
    pub(crate) now: Timestamp,
}

impl Searches<'_> {
    /// Answers a search with one JSON document.
    pub(crate) async fn search(
        self,
        question: &Question,
        asked: &SearchQuestion,
    ) -> Result<Spent, Refusal> {
        let query = self.query(&asked.query, asked.range)?;
        if asked.hits_max > HITS_MAX {
            return Err(too_large(format!("a page has at most {HITS_MAX} hits")));
        }
        let after = asked.after.as_deref().map(str::parse::<Cursor>).transpose().map_err(of)?;
        let request = SearchRequest {
            query,
            hits_max: usize::try_from(asked.hits_max).unwrap_or(usize::MAX),
            after,
            wants_total: asked.wants_total,
            wants_marks: asked.wants_highlights,
        };
        let tables = self.link.resolve(vec![asked.stream.clone()]).await?;
        let table = tables.first().ok_or_else(|| internal("the server gave no stream"))?;
        let usage = Arc::clone(&self.reads.usage);
        let (parts, source) = CutSource::new(table, self.reads.clone(), self.indexes.clone());
        self.link.begin(Vec::new(), Vec::new(), Vec::new(), "SEARCH".to_owned()).await?;
        let options = self.run_options(question);
        let progress = question.wants_progress.then_some(options.progress_interval);
        let searching = search(Arc::new(source), parts, request, options);
        let hits = self.telling(searching, progress, &usage).await?;
        let rows = hits.hits.len() as u64;
        let bytes_max = question.limits.bytes_max;
        let mut bytes = 0_u64;
        for (rows, piece) in hits.json_pieces(self.options.part_bytes, asked.wants_highlights) {
            bytes += piece.len() as u64;
            if bytes > bytes_max {
                return Err(of(Failure::HitsTooLarge { bytes_max }));
            }
            self.link.data(rows, &piece).await?;
        }
        Ok(Spent { rows, ..usage.spent() })
    }

    /// Answers a histogram with one JSON document; where progress is wanted, with
    /// documents of what is counted so far before it.
    pub(crate) async fn histogram(
        self,
        question: &Question,
        asked: &HistogramQuestion,
    ) -> Result<Spent, Refusal> {
        let query = self.query(&asked.query, asked.range)?;
        if asked.buckets_max > BARS_MAX {
            return Err(too_large(format!("a histogram has at most {BARS_MAX} buckets")));
        }
        if asked.top_of.len() > TOP_FIELDS_MAX || asked.top_max > TOP_VALUES_MAX {
            return Err(too_large(format!(
                "at most {TOP_VALUES_MAX} values of at most {TOP_FIELDS_MAX} fields are counted"
            )));
        }
        let request = HistogramRequest {
            query,
            bars_max: usize::try_from(asked.buckets_max).unwrap_or(1),
            top_of: asked.top_of.clone(),
            top_max: usize::try_from(asked.top_max).unwrap_or(0),
        };
        let tables = self.link.resolve(vec![asked.stream.clone()]).await?;
        let table = tables.first().ok_or_else(|| internal("the server gave no stream"))?;
        let usage = Arc::clone(&self.reads.usage);
        let (parts, source) = CutSource::new(table, self.reads.clone(), self.indexes.clone());
        self.link.begin(Vec::new(), Vec::new(), Vec::new(), "HISTOGRAM".to_owned()).await?;
        let options = self.run_options(question);
        let (told, mut news) = watch::channel(Bars::default());
        let told = question.wants_progress.then_some(told);
        let counting = histogram(Arc::new(source), parts, request, options, told);
        let mut counting = std::pin::pin!(counting);
        let bars = loop {
            tokio::select! {
                bars = &mut counting => break bars.map_err(of)?,
                Ok(()) = news.changed() => {
                    let document = news.borrow_and_update().to_json();
                    self.link.data(0, &document).await?;
                    self.link.progress(usage.progress()).await?;
                }
            }
        };
        self.link.data(bars.bars.len() as u64, &bars.to_json()).await?;
        Ok(Spent { rows: bars.bars.len() as u64, ..usage.spent() })
    }

    fn query(&self, text: &str, range: TimeRange) -> Result<Query, Refusal> {
        let query = Query::parse(text, self.now).map_err(|error| Refusal {
            position: Some(error.position),
            ..invalid("search-syntax", "42601", error.to_string())
        })?;
        Ok(query.within(range.from, range.to))
    }

    fn run_options(&self, question: &Question) -> RunOptions {
        let defaults = RunOptions::default();
        // Hits, and the counts of values, are what a search holds beside the
        // runs of rows that are under way.
        let memory = question.limits.memory_bytes_max / 4;
        // A read holds about twice its unit.
        let fit = usize::try_from(memory).unwrap_or(usize::MAX) / (2 * defaults.unit_bytes.max(1));
        RunOptions {
            reads_max: (self.options.target_partitions.max(1) * 2).min(fit).max(1),
            hits_bytes_max: question.limits.bytes_max.min(memory),
            top_bytes_max: memory,
            progress_interval: Duration::from_millis(self.options.progress_ms.max(1)),
            ..defaults
        }
    }

    /// Says from time to time how far it is, if that is wanted.
    async fn telling<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        progress: Option<Duration>,
        usage: &Usage,
    ) -> Result<T, Refusal> {
        let Some(interval) = progress else { return work.await.map_err(of) };
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(interval);
        ticks.tick().await;
        loop {
            tokio::select! {
                done = &mut work => return done.map_err(of),
                _ = ticks.tick() => self.link.progress(usage.progress()).await?,
            }
        }
    }
}

fn too_large(message: String) -> Refusal {
    refusal(ErrorKind::TooLarge, "search-too-large", "54000", message)
}

/// Why a search has no answer, as its caller is told.
fn of(failure: Failure) -> Refusal {
    let unreadable = |kind, message| refusal(kind, "unreadable", "58030", message);
    match failure {
        Failure::HitsTooLarge { .. } => {
            refusal(ErrorKind::TooLarge, "bytes-max", "54000", failure.to_string())
        }
        Failure::Cursor { .. } => invalid("search-cursor", "22023", failure.to_string()),
        Failure::Lost => internal(failure.to_string()),
        Failure::Chunk(error) => chunk(&error),
        Failure::Source(error) => match error.downcast_ref::<Error>() {
            Some(Error::Chunk(error)) => chunk(error),
            Some(Error::Refused(refusal)) => refusal.clone(),
            Some(error) => unreadable(error.kind(), error.to_string()),
            None => internal(error.to_string()),
        },
    }
}

/// A chunk's path is for the log of who runs the server.
fn chunk(error: &aquifer_chunk::Error) -> Refusal {
    tracing::warn!(%error, "a search could not read a chunk");
    let message = "a part of the stream cannot be read; the server's log says which";
    refusal(error.kind(), "unreadable", "58030", message)
}
