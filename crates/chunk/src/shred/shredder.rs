//! Values into columns.

use std::sync::Arc;

use aquifer_types::{FieldKind, SchemaField, StreamSchema};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, StructArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, Fields};

use super::column::{Column, Texts};
use super::field_columns;
use super::json::{Json, NESTING_MAX};
use super::names::{Found, Last, Names};
use super::unfit_element;
use crate::Error;
use crate::fields::is_object;

/// A row whose unfit paths are more bytes than this has the empty path alone, so
/// that no value is many times as large in columns.
const UNFIT_BYTES_MAX: usize = 4096;
/// As many cells of fields are made at once, so that a wide schema over small
/// records does not take many times their memory.
const CELLS_AT_ONCE_MAX: usize = 1 << 21;

/// Takes the fields of a schema out of values. Its memory is kept from one call
/// to the next.
#[derive(Debug)]
pub struct Shredder {
    /// `_unfit` and the top-level fields.
    columns: Vec<Field>,
    /// One a field of the schema, in its order.
    places: Vec<Place>,
    /// The names at the top.
    top: Names,
    unfit: Unfit,
    scratch: Vec<u8>,
    /// Grows by one with each value.
    value: u64,
}

/// One field of the schema.
#[derive(Debug)]
struct Place {
    kind: FieldKind,
    parent: Option<u32>,
    /// Its names, joined by dots.
    path: String,
    has_column: bool,
    column: Column,
    /// The names below it.
    names: Names,
    /// The last value that had it.
    seen: u64,
    /// The last value that had it twice.
    twice: u64,
}

/// What did not fit.
#[derive(Debug, Default)]
struct Unfit {
    /// The fields of the value that is read.
    fields: Vec<u32>,
    /// The rows that have some, growing, each with where its paths end.
    rows: Vec<(u32, usize)>,
    paths: Texts,
}

impl Shredder {
    /// For the fields of this schema.
    #[must_use]
    pub fn new(schema: &StreamSchema) -> Self {
        let columns = field_columns(schema);
        let fields = schema.fields();
        let place_of = |id: i32| fields.binary_search_by_key(&id, |field| field.id).ok();
        let with_column = super::with_column(schema);
        let mut top = Names::default();
        let mut places: Vec<Place> = Vec::with_capacity(fields.len());
        for (at, field) in fields.iter().enumerate() {
            let parent = field.parent.and_then(place_of);
            places.push(Place::new(schema, field, parent, with_column.contains(&field.id)));
            let names = match parent.and_then(|parent| places.get_mut(parent)) {
                Some(parent) => &mut parent.names,
                None => &mut top,
            };
            names.add(field.name.as_bytes(), at as u32);
        }
        Self { columns, places, top, unfit: Unfit::default(), scratch: Vec::new(), value: 0 }
    }

    /// The fields that [`Shredder::shred`] gives, in its order: those of
    /// [`field_columns`].
    #[must_use]
    pub fn columns(&self) -> &[Field] {
        &self.columns
    }

    /// The most rows to shred at once, at least 1: a schema has few enough fields.
    pub(crate) fn rows_max(&self) -> usize {
        match self.columns.is_empty() {
            true => usize::MAX,
            false => CELLS_AT_ONCE_MAX / self.places.len(),
        }
    }

    /// The columns of these values, in the order of [`field_columns`]: none where
    /// the schema has none. `values` are binary, of any of Arrow's three kinds.
    /// Memory grows with their bytes, and with their number times the schema's
    /// fields.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where they are not binary, [`Error::Encode`] where a
    /// column has more than 2 GiB of text.
    pub fn shred(&mut self, values: &dyn Array) -> Result<Vec<ArrayRef>, Error> {
        if self.columns.is_empty() {
            return Ok(Vec::new());
        }
        u32::try_from(values.len()).map_err(Error::encode)?;
        match values.data_type() {
            DataType::Binary => self.rows(values.as_binary::<i32>().iter()),
            DataType::LargeBinary => self.rows(values.as_binary::<i64>().iter()),
            DataType::BinaryView => self.rows(values.as_binary_view().iter()),
            other => {
                let why = format!("values are binary, not {other}");
                return Err(Error::Mismatch { why });
            }
        }
        self.finish(values.len())
    }

    fn rows<'a>(&mut self, values: impl Iterator<Item = Option<&'a [u8]>>) {
        for (row, value) in values.enumerate() {
            if let Some(bytes) = value.filter(|bytes| is_object(bytes)) {
                self.row(bytes, row as u32);
            }
        }
    }

    /// How many of these values begin as an object and are no JSON. For schemas
    /// without columns: others have [`Shredder::shred`] say so of each.
    pub(crate) fn count_broken<'a>(
        &mut self,
        values: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> u64 {
        let mut broken = 0;
        for bytes in values.flatten().filter(|bytes| is_object(bytes)) {
            broken += u64::from(!self.read(bytes, 0));
            self.unfit.fields.clear();
        }
        broken
    }

    /// Reads a value; whether it is JSON.
    fn read(&mut self, bytes: &[u8], row: u32) -> bool {
        self.value += 1;
        let mut json = Json::new(bytes);
        std::str::from_utf8(bytes).is_ok()
            && json.expect(b'{').is_some()
            && self.object(&mut json, None, 1, row).is_some()
            && json.is_at_end()
    }

    fn row(&mut self, bytes: &[u8], row: u32) {
        let is_json = self.read(bytes, row);
        if is_json && self.unfit.fields.is_empty() {
            return;
        }
        self.unfit.fields.sort_unstable();
        self.unfit.fields.dedup();
        let is_named = is_json && self.unfit_bytes() <= UNFIT_BYTES_MAX;
        if is_named {
            for field in &self.unfit.fields {
                if let Some(place) = self.places.get(*field as usize) {
                    self.unfit.paths.push_plain(&place.path);
                }
            }
        } else {
            for place in &mut self.places {
                place.column.take_back(row);
            }
            self.unfit.paths.push_plain("");
        }
        self.unfit.fields.clear();
        self.unfit.rows.push((row, self.unfit.paths.len()));
    }

    fn unfit_bytes(&self) -> usize {
        let places = self.unfit.fields.iter().filter_map(|field| self.places.get(*field as usize));
        places.map(|place| place.path.len()).sum()
    }

    /// Reads an object from behind its `{` on; `None` where it is no JSON.
    fn object(
        &mut self,
        json: &mut Json<'_>,
        at: Option<u32>,
        nesting: usize,
        row: u32,
    ) -> Option<()> {
        let mut last = Last::default();
        let mut is_first = true;
        while json.next_name(is_first)? {
            is_first = false;
            let names = match at {
                None => &mut self.top,
                Some(at) => &mut self.places.get_mut(at as usize)?.names,
            };
            let found = names.next(json, &mut last, &mut self.scratch)?;
            json.expect(b':')?;
            match found {
                Found::Known(field) => self.field(json, field, nesting, row)?,
                Found::Unknown { .. } => json.skip(nesting)?,
            }
        }
        Some(())
    }

    /// Reads the value of a field; `None` where it is no JSON.
    #[inline]
    fn field(&mut self, json: &mut Json<'_>, field: u32, nesting: usize, row: u32) -> Option<()> {
        let place = self.places.get_mut(field as usize)?;
        if !place.has_column {
            return json.skip(nesting);
        }
        if place.seen == self.value {
            // Once a value, however often it is there.
            if place.twice != self.value {
                place.twice = self.value;
                self.take_back(field, row);
                self.unfit.fields.push(field);
            }
            return json.skip(nesting);
        }
        place.seen = self.value;
        let fits = match json.peek()? {
            b'"' => place.column.put_text(row, json.text()?, &mut self.scratch),
            b'{' if place.kind == FieldKind::Object => {
                if nesting >= NESTING_MAX {
                    return None;
                }
                place.column.put_object(row);
                json.expect(b'{')?;
                return self.object(json, Some(field), nesting + 1, row);
            }
            b'{' | b'[' => {
                json.skip(nesting)?;
                false
            }
            b't' | b'f' | b'n' => place.column.put_literal(row, json.literal()?),
            _ => place.column.put_number(row, json.number()?),
        };
        if !fits {
            self.unfit.fields.push(field);
        }
        Some(())
    }

    /// Takes back what this row has in a field and below it: which of two values
    /// counts, nobody can say.
    fn take_back(&mut self, field: u32, row: u32) {
        let Self { places, unfit, .. } = self;
        let is_below = |mut at: u32| {
            while let Some(parent) = places.get(at as usize).and_then(|place| place.parent) {
                if parent == field {
                    return true;
                }
                at = parent;
            }
            false
        };
        unfit.fields.retain(|unfit| !is_below(*unfit));
        let below: Vec<u32> = (0..places.len() as u32).filter(|at| is_below(*at)).collect();
        for at in below.into_iter().chain([field]) {
            if let Some(place) = places.get_mut(at as usize) {
                place.column.take_back(row);
            }
        }
    }

    fn finish(&mut self, count: usize) -> Result<Vec<ArrayRef>, Error> {
        let mut arrays = Vec::with_capacity(self.columns.len());
        arrays.push(self.unfit.finish(count));
        let columns = std::mem::take(&mut self.columns);
        let tops: Vec<u32> = self.top.targets().collect();
        let mut fields = columns.iter().skip(1);
        for at in tops {
            if self.places.get(at as usize).is_some_and(|place| place.has_column)
                && let Some(field) = fields.next()
            {
                arrays.push(self.array(at, field.data_type(), count));
            }
        }
        self.columns = columns;
        // All of them are emptied before the first error counts.
        arrays.into_iter().collect()
    }

    fn array(&mut self, at: u32, data_type: &DataType, count: usize) -> Result<ArrayRef, Error> {
        let missing = || Error::encode("a column has no field");
        let place = self.places.get_mut(at as usize).ok_or_else(missing)?;
        let DataType::Struct(fields) = data_type else { return place.column.finish(count) };
        let nulls = place.column.finish_object(count);
        let below: Vec<u32> = place.names.targets().collect();
        let mut arrays = Vec::with_capacity(fields.len());
        let mut rest = fields.iter();
        for at in below {
            if self.places.get(at as usize).is_some_and(|place| place.has_column)
                && let Some(field) = rest.next()
            {
                arrays.push(self.array(at, field.data_type(), count));
            }
        }
        let arrays: Vec<ArrayRef> = arrays.into_iter().collect::<Result<_, Error>>()?;
        let fields: Fields = fields.clone();
        let array = StructArray::try_new(fields, arrays, nulls).map_err(Error::encode)?;
        Ok(Arc::new(array))
    }
}

impl Place {
    fn new(
        schema: &StreamSchema,
        field: &SchemaField,
        parent: Option<usize>,
        has_column: bool,
    ) -> Self {
        Self {
            kind: field.kind,
            parent: parent.map(|parent| parent as u32),
            path: schema.path(field.id).join("."),
            has_column,
            column: Column::new(field.kind),
            names: Names::default(),
            seen: 0,
            twice: 0,
        }
    }
}

impl Unfit {
    /// The column `_unfit` of `count` rows; it is empty again.
    fn finish(&mut self, count: usize) -> Result<ArrayRef, Error> {
        let rows = std::mem::take(&mut self.rows);
        let paths = self.paths.finish_all()?;
        let mut bits = vec![0_u8; count.div_ceil(8)];
        let mut positions = Vec::with_capacity(count + 1);
        positions.push(0_i32);
        let mut last = 0;
        for (row, end) in rows {
            positions.resize(row as usize + 1, last);
            last = i32::try_from(end).map_err(Error::encode)?;
            positions.push(last);
            if let Some(byte) = bits.get_mut(row as usize / 8) {
                *byte |= 1 << (row % 8);
            }
        }
        positions.resize(count + 1, last);
        let nulls = NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(bits), 0, count));
        let list = ListArray::try_new(
            Arc::new(unfit_element()),
            OffsetBuffer::new(ScalarBuffer::from(positions)),
            Arc::new(paths),
            Some(nulls),
        );
        Ok(Arc::new(list.map_err(Error::encode)?))
    }
}
