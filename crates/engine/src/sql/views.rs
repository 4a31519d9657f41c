//! Views: statements under names, put in where they are named.

use std::collections::HashMap;

use aquifer_query::EngineOptions;
use aquifer_query::wire::Refusal;

use super::command::Command;
use super::names::{Listing, Named, resolve_all};
use super::source::Source;
use crate::refusal::{invalid, too_complex};

/// How often streams and views may be read by one statement, each time that a
/// view repeats one counted: views upon views multiply.
const READS_MAX: usize = 1000;

/// A view that a statement stands on.
#[derive(Debug)]
pub(crate) struct View {
    /// Its name.
    pub(crate) name: String,
    /// Its statement.
    pub(crate) source: Source,
    /// What it names.
    pub(crate) uses: Vec<Named>,
}

/// Finds the views that a statement stands on.
pub(crate) struct Expansion<'a> {
    listing: &'a Listing,
    options: &'a EngineOptions,
    /// Views in an order in which each comes behind those that it names.
    pub(crate) views: Vec<View>,
    /// How many streams a view reads in the end.
    reads: HashMap<String, usize>,
    /// The views that are being looked at, outermost first.
    path: Vec<String>,
}

impl<'a> Expansion<'a> {
    /// Nothing yet.
    pub(crate) fn new(listing: &'a Listing, options: &'a EngineOptions) -> Self {
        Self { listing, options, views: Vec::new(), reads: HashMap::new(), path: Vec::new() }
    }

    /// Adds what `used` stands on; how many reads that is.
    pub(crate) fn add(&mut self, used: &[Named]) -> Result<usize, Refusal> {
        let mut reads = 0_usize;
        for named in used {
            reads = reads.saturating_add(match named {
                Named::Stream(_) | Named::System(..) => 1,
                Named::View(name) => self.view(name)?,
            });
        }
        if reads > READS_MAX {
            return Err(too_complex(format!(
                "with its views, the statement reads streams {reads} times; {READS_MAX} are the most"
            )));
        }
        Ok(reads)
    }

    fn view(&mut self, name: &str) -> Result<usize, Refusal> {
        if let Some(reads) = self.reads.get(name) {
            return Ok(*reads);
        }
        if self.path.iter().any(|above| above == name) {
            let path = self.path.join(" → ");
            return Err(invalid(
                "view-cycle",
                "42P17",
                format!("the view {name} stands on itself: {path} → {name}"),
            ));
        }
        if self.path.len() >= self.options.view_depth_max {
            return Err(too_complex(format!(
                "views stand on views more than {} deep",
                self.options.view_depth_max
            )));
        }
        if self.views.len() >= self.options.views_max {
            return Err(too_complex(format!(
                "the statement stands on more than {} views",
                self.options.views_max
            )));
        }
        let Some((_, sql)) = self.listing.views.iter().find(|(view, _)| view == name) else {
            return Err(self.listing.unknown(name));
        };
        self.path.push(name.to_owned());
        let source = Source::read(sql, self.options).map_err(|error| within(name, error))?;
        let mut statement = source.parse().map_err(|error| within(name, error))?;
        if !matches!(Command::of(&statement)?, Command::Rows { tag: "SELECT" }) {
            return Err(invalid("view-invalid", "42P16", format!("the view {name} is no query")));
        }
        let uses =
            resolve_all(&mut statement, self.listing).map_err(|error| within(name, error))?;
        let reads = self.add(&uses)?;
        self.path.pop();
        self.reads.insert(name.to_owned(), reads);
        self.views.push(View { name: name.to_owned(), source, uses });
        Ok(reads)
    }
}

/// Says in which view something is wrong; the place in the view's text is no
/// place in the statement's.
pub(crate) fn within(view: &str, mut refusal: Refusal) -> Refusal {
    refusal.message = format!("in the view {view}: {}", refusal.message);
    refusal.position = None;
    refusal
}
