//! What of a chunk the statistics of nested fields rule out.
//!
//! DataFusion prunes by columns at the top. A field within an object is derived,
//! so a filter over it is one over a plain column, and the leaf's own statistics
//! in the footer are held against it: those of row groups first, then those of
//! pages. Where nothing can be proved, everything is read.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, UInt64Array};
use arrow_schema::{DataType, SchemaRef};
use datafusion::arrow::compute::cast;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column as Named, ScalarValue};
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use datafusion::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use datafusion::parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};

use super::Leaf;
use super::columns::{Columns, Part};

/// A filter over nested fields, in the form that footers are held against.
#[derive(Debug)]
pub(crate) struct Leaves {
    /// By the name of the derived column.
    by_name: BTreeMap<String, Column>,
    whole: Arc<PruningPredicate>,
    /// Parts of the filter that are over one leaf each, and which.
    single: Vec<(String, Arc<PruningPredicate>)>,
}

#[derive(Debug)]
struct Column {
    leaf: Leaf,
    data_type: DataType,
    /// Whether it stands for the field also where something does not fit.
    is_field: bool,
}

/// What is to be read of a chunk, and what is not.
#[derive(Debug)]
pub(crate) struct Pruned {
    pub(crate) plan: ParquetAccessPlan,
    pub(crate) row_groups: usize,
    pub(crate) pages: usize,
}

impl Leaves {
    /// `None` where `filter` has no nested field in it that could prune.
    pub(crate) fn new(columns: &Columns, filter: Option<&Arc<dyn PhysicalExpr>>) -> Option<Self> {
        let filter = filter?;
        let used: HashSet<String> =
            collect_columns(filter).iter().map(|column| column.name().to_owned()).collect();
        let leaf = |derived: &Arc<super::Derived>| {
            let leaf = derived.leaf()?.clone();
            let data_type = derived.field().data_type().clone();
            let column = Column { leaf, data_type, is_field: derived.is_field() };
            used.contains(derived.name()).then(|| (derived.name().to_owned(), column))
        };
        let by_name: BTreeMap<String, Column> = columns.derived().iter().filter_map(leaf).collect();
        if by_name.is_empty() {
            return None;
        }
        let schema = columns.schema();
        let single = split_conjunction(filter).into_iter().filter_map(|part| {
            let used = collect_columns(part);
            let name = used.iter().next().filter(|_| used.len() == 1)?.name().to_owned();
            let predicate = by_name.contains_key(&name).then(|| predicate(part, schema))??;
            Some((name, predicate))
        });
        let single = single.collect();
        Some(Self { whole: predicate(filter, schema)?, single, by_name })
    }

    /// What of a chunk is to be read; `None` where that is everything.
    pub(crate) fn prune(&self, part: Part, footer: &ParquetMetaData) -> Option<Pruned> {
        if part == Part::Values {
            return None;
        }
        let groups = footer.num_row_groups();
        let of_groups = Statistics { leaves: self, part, footer, page: None };
        let keep = self.whole.prune(&of_groups).ok().filter(|keep| keep.len() == groups)?;
        let mut pruned =
            Pruned { plan: ParquetAccessPlan::new_all(groups), row_groups: 0, pages: 0 };
        for (group, keep) in keep.into_iter().enumerate() {
            match keep {
                false => pruned.skip(group),
                true => self.prune_pages(part, footer, group, &mut pruned),
            }
        }
        (pruned.row_groups + pruned.pages > 0).then_some(pruned)
    }

    fn prune_pages(&self, part: Part, footer: &ParquetMetaData, group: usize, pruned: &mut Pruned) {
        let mut selection: Option<RowSelection> = None;
        for (name, predicate) in &self.single {
            let of_pages = Statistics { leaves: self, part, footer, page: Some((group, name)) };
            let Some(rows) = of_pages.pages() else { continue };
            let Some(keep) =
                predicate.prune(&of_pages).ok().filter(|keep| keep.len() == rows.len())
            else {
                continue;
            };
            pruned.pages += keep.iter().filter(|keep| !**keep).count();
            let selectors = keep.iter().zip(&rows).map(|(keep, rows)| match keep {
                true => RowSelector::select(*rows),
                false => RowSelector::skip(*rows),
            });
            let own: RowSelection = selectors.collect::<Vec<_>>().into();
            selection = Some(match selection {
                None => own,
                Some(other) => other.intersection(&own),
            });
        }
        match selection {
            Some(rows) if !rows.selects_any() => pruned.skip(group),
            Some(rows) if rows.iter().any(|rows| rows.skip) => {
                pruned.plan.set(group, RowGroupAccess::Selection(rows));
            }
            _ => {}
        }
    }
}

impl Pruned {
    fn skip(&mut self, group: usize) {
        self.plan.skip(group);
        self.row_groups += 1;
    }

    /// Whether nothing is to be read at all.
    pub(crate) fn is_nothing(&self) -> bool {
        self.plan.row_group_index_iter().next().is_none()
    }
}

fn predicate(filter: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> Option<Arc<PruningPredicate>> {
    PruningPredicateBuilder::new().with_file_schema(schema.clone()).build(filter.clone())
}

/// The statistics of a chunk's row groups, or of the pages of one of them.
struct Statistics<'a> {
    leaves: &'a Leaves,
    part: Part,
    footer: &'a ParquetMetaData,
    /// The row group, and the leaf whose pages these are.
    page: Option<(usize, &'a str)>,
}

impl Statistics<'_> {
    fn converter(&self, name: &str) -> Option<StatisticsConverter<'_>> {
        let column = self.leaves.by_name.get(name)?;
        if self.part != Part::Fitting && !column.is_field {
            return None;
        }
        let leaf = &column.leaf;
        let schema = self.footer.file_metadata().schema_descr();
        let is_it = |at: &usize| schema.column(*at).path().parts() == leaf.path.as_slice();
        let index = (0..schema.num_columns()).find(is_it)?;
        let converter = StatisticsConverter::from_column_index(index, &leaf.field, schema).ok()?;
        Some(converter.with_missing_null_counts_as_zero(false))
    }

    /// Least or greatest values of the leaf as those of the column.
    fn cast(&self, name: &str, of_leaf: &ArrayRef) -> Option<ArrayRef> {
        cast(of_leaf, &self.leaves.by_name.get(name)?.data_type).ok()
    }

    /// How many rows each page has, where there is an index of them.
    fn pages(&self) -> Option<Vec<usize>> {
        let (group, name) = self.page?;
        let converter = self.converter(name)?;
        let index = converter.parquet_column_index()?;
        let offsets = self.footer.offset_index()?;
        // What follows takes it for granted that they are there.
        self.footer.column_index()?.get(group)?.get(index)?;
        let locations = offsets.get(group)?.get(index)?.page_locations();
        if locations.is_empty() {
            return None;
        }
        let rows = converter
            .data_page_row_counts(offsets, self.footer.row_groups(), [group].iter())
            .ok()??;
        let each = rows.iter().map(|rows| usize::try_from(rows?).ok());
        each.collect()
    }
}

impl PruningStatistics for Statistics<'_> {
    fn min_values(&self, column: &Named) -> Option<ArrayRef> {
        let converter = self.converter(column.name())?;
        let values = match self.page {
            None => converter.row_group_mins(self.footer.row_groups()).ok(),
            Some((group, _)) => converter
                .data_page_mins(
                    self.footer.column_index()?,
                    self.footer.offset_index()?,
                    [group].iter(),
                )
                .ok(),
        };
        self.cast(column.name(), &values?)
    }

    fn max_values(&self, column: &Named) -> Option<ArrayRef> {
        let converter = self.converter(column.name())?;
        let values = match self.page {
            None => converter.row_group_maxes(self.footer.row_groups()).ok(),
            Some((group, _)) => converter
                .data_page_maxes(
                    self.footer.column_index()?,
                    self.footer.offset_index()?,
                    [group].iter(),
                )
                .ok(),
        };
        self.cast(column.name(), &values?)
    }

    fn num_containers(&self) -> usize {
        match self.page {
            None => self.footer.num_row_groups(),
            Some(_) => self.pages().map_or(0, |pages| pages.len()),
        }
    }

    fn null_counts(&self, column: &Named) -> Option<ArrayRef> {
        let converter = self.converter(column.name())?;
        let counts = match self.page {
            None => converter.row_group_null_counts(self.footer.row_groups()).ok()?,
            Some((group, _)) => converter
                .data_page_null_counts(
                    self.footer.column_index()?,
                    self.footer.offset_index()?,
                    [group].iter(),
                )
                .ok()?,
        };
        Some(Arc::new(counts))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        if self.page.is_some() {
            return None;
        }
        let rows = self.footer.row_groups().iter().map(|group| u64::try_from(group.num_rows()));
        let rows: UInt64Array = rows.map(Result::ok).collect();
        (rows.null_count() == 0).then(|| Arc::new(rows) as ArrayRef)
    }

    fn contained(&self, _: &Named, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
