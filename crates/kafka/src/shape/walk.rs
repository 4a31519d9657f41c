//! Steps over a body's bytes.

use super::{Field, Kind};

/// Why a body is refused before it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShapeError {
    #[error("no shape is known")]
    NoShape,
    #[error("a field of {length} bytes begins {left} bytes before the end")]
    Short { length: usize, left: usize },
    #[error("a length of {0}")]
    Length(i64),
    #[error("a structure that is neither there nor not: {0}")]
    Presence(i8),
    #[error("a variable-length number of more than 32 bits")]
    Number,
    #[error("a list of {count} elements begins {left} bytes before the end")]
    Count { count: i64, left: usize },
    #[error("lists of more than {max} elements together (request_elements_max)")]
    Elements { max: usize },
    #[error("tagged fields are out of order at tag {0}")]
    Order(u32),
    #[error("tagged field {0} is not as long as it says")]
    Tagged(u32),
}

/// What is left of a body, and what its lists had so far.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    left: &'a [u8],
    version: i16,
    is_flexible: bool,
    elements: usize,
    elements_max: usize,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(
        body: &'a [u8],
        version: i16,
        is_flexible: bool,
        elements_max: usize,
    ) -> Self {
        Self { left: body, version, is_flexible, elements: 0, elements_max }
    }

    /// The elements of all lists so far.
    pub(super) const fn elements(&self) -> usize {
        self.elements
    }

    /// Fields one behind the other, then the tagged ones.
    pub(super) fn structure(&mut self, fields: &[Field]) -> Result<(), ShapeError> {
        let version = self.version;
        for field in fields.iter().filter(|of| of.tag.is_none() && of.is_in(version)) {
            self.field(field)?;
        }
        if self.is_flexible { self.tagged(fields) } else { Ok(()) }
    }

    fn field(&mut self, field: &Field) -> Result<(), ShapeError> {
        match field.kind {
            Kind::Fixed(bytes) => self.skip(bytes),
            Kind::Text => {
                let length = if self.is_flexible { self.compact()? } else { self.int16()?.into() };
                self.skip_length(length)
            }
            Kind::Blob => {
                let length = if self.is_flexible { self.compact()? } else { self.int32()?.into() };
                self.skip_length(length)
            }
            Kind::List(fields) => {
                for _ in 0..self.count()? {
                    self.structure(fields)?;
                }
                Ok(())
            }
            Kind::Values(of) => {
                for _ in 0..self.count()? {
                    self.field(of)?;
                }
                Ok(())
            }
            Kind::Structure(fields) => self.structure(fields),
            Kind::Optional(fields) => {
                // The codec takes anything but 1 for an absence.
                match self.take().map(i8::from_be_bytes)? {
                    1 => self.structure(fields),
                    -1 => Ok(()),
                    other => Err(ShapeError::Presence(other)),
                }
            }
        }
    }

    /// Those that are known are walked; they must be as long as they say, since
    /// the codec does not look at that.
    fn tagged(&mut self, fields: &[Field]) -> Result<(), ShapeError> {
        let count = self.varint()?;
        let mut last = None;
        for _ in 0..count {
            self.count_elements(1)?;
            let tag = self.varint()?;
            // Strictly ascending (KIP-482), so that none comes twice.
            if last.is_some_and(|last| last >= tag) || i32::try_from(tag).is_err() {
                return Err(ShapeError::Order(tag));
            }
            last = Some(tag);
            let length = usize_of(self.varint()?);
            let before = self.left.len();
            let known = fields.iter().find(|of| of.tag == Some(tag) && of.is_in(self.version));
            match known {
                Some(field) => self.field(field)?,
                None => self.skip(length)?,
            }
            if before - self.left.len() != length {
                return Err(ShapeError::Tagged(tag));
            }
        }
        Ok(())
    }

    /// A list's count; a null list has none.
    fn count(&mut self) -> Result<usize, ShapeError> {
        let count = if self.is_flexible { self.compact()? } else { self.int32()?.into() };
        if count == -1 {
            return Ok(0);
        }
        let left = self.left.len();
        // Every element takes a byte at least.
        match usize::try_from(count) {
            Ok(known) if known <= left => {
                self.count_elements(known)?;
                Ok(known)
            }
            _ => Err(ShapeError::Count { count, left }),
        }
    }

    fn count_elements(&mut self, more: usize) -> Result<(), ShapeError> {
        self.elements += more;
        if self.elements > self.elements_max {
            return Err(ShapeError::Elements { max: self.elements_max });
        }
        Ok(())
    }

    /// Skips a text or bytes; -1 is null.
    fn skip_length(&mut self, length: i64) -> Result<(), ShapeError> {
        match usize::try_from(length) {
            Ok(length) => self.skip(length),
            Err(_) if length == -1 => Ok(()),
            Err(_) => Err(ShapeError::Length(length)),
        }
    }

    fn skip(&mut self, length: usize) -> Result<(), ShapeError> {
        let left = self.left.len();
        self.left = self.left.get(length..).ok_or(ShapeError::Short { length, left })?;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ShapeError> {
        let short = ShapeError::Short { length: N, left: self.left.len() };
        let (taken, left) = self.left.split_first_chunk::<N>().ok_or(short)?;
        self.left = left;
        Ok(*taken)
    }

    fn int16(&mut self) -> Result<i16, ShapeError> {
        self.take().map(i16::from_be_bytes)
    }

    fn int32(&mut self) -> Result<i32, ShapeError> {
        self.take().map(i32::from_be_bytes)
    }

    /// A compact length or count: one more than it is, 0 for null.
    fn compact(&mut self) -> Result<i64, ShapeError> {
        Ok(i64::from(self.varint()?) - 1)
    }

    fn varint(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| ShapeError::Number);
            }
        }
        Err(ShapeError::Number)
    }
}

const fn usize_of(value: u32) -> usize {
    // Aquifer runs on machines of 64 bits.
    value as usize
}

/// Walks a request's header (versions 1 and 2), which stands before its body.
pub(crate) fn header(
    bytes: &[u8],
    header_version: i16,
    elements_max: usize,
) -> Result<(), ShapeError> {
    let mut walk = Walk::new(bytes, header_version, false, elements_max);
    // API, version and correlation id.
    walk.skip(8)?;
    if header_version >= 1 {
        // The client id is never compact, so that old servers can read it.
        let length = walk.int16()?;
        walk.skip_length(length.into())?;
    }
    if header_version >= 2 { walk.tagged(&[]) } else { Ok(()) }
}
