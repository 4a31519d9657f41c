//! Bits, the highest of a byte first: what ranges of terms are written in.

/// Writes bits.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that do not fill a byte yet, in the low end.
    open: u64,
    open_bits: u32,
}

impl BitWriter {
    /// Writes the `count` low bits of `value`, at most 56.
    pub(super) fn bits(&mut self, value: u64, count: u32) {
        debug_assert!(count <= 56 && (count == 64 || value < 1 << count));
        self.open = self.open << count | value;
        self.open_bits += count;
        while self.open_bits >= 8 {
            self.open_bits -= 8;
            self.bytes.push((self.open >> self.open_bits) as u8);
        }
        self.open &= (1 << self.open_bits) - 1;
    }

    /// Writes `value` ones and a zero.
    pub(super) fn unary(&mut self, mut value: u64) {
        while value >= 32 {
            self.bits(u64::from(u32::MAX), 32);
            value -= 32;
        }
        self.bits((1 << (value + 1)) - 2, value as u32 + 1);
    }

    /// Rice's code: the high part unary, then the `low` low bits.
    pub(super) fn rice(&mut self, value: u64, low: u32) {
        self.unary(value >> low);
        self.bits(value & ((1 << low) - 1), low);
    }

    /// The bytes, the last one filled up with zeros.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.open_bits > 0 {
            self.bits(0, 8 - self.open_bits);
        }
        self.bytes
    }
}

/// Reads bits; every method gives `None` at the end.
#[derive(Debug, Clone)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bits are left.
    pub(super) const fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        if self.left() < count {
            return None;
        }
        self.at += count;
        Some(())
    }

    /// The next bits at the high end, 57 of them at least; zeros behind the end.
    fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = match rest.first_chunk::<8>() {
            Some(eight) => u64::from_be_bytes(*eight),
            None => {
                let mut eight = [0; 8];
                eight.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                u64::from_be_bytes(eight)
            }
        };
        word << (self.at % 8)
    }

    /// Reads `count` bits, at most 56.
    pub(super) fn bits(&mut self, count: u32) -> Option<u64> {
        if count == 0 {
            return Some(0);
        }
        let value = self.peek() >> (64 - count);
        self.skip(count as usize)?;
        Some(value)
    }

    pub(super) fn unary(&mut self) -> Option<u64> {
        let mut value = 0;
        loop {
            let ones = self.peek().leading_ones().min(56);
            value += u64::from(ones);
            if ones < 56 {
                self.skip(ones as usize + 1)?;
                return Some(value);
            }
            self.skip(56)?;
        }
    }

    pub(super) fn rice(&mut self, low: u32) -> Option<u64> {
        let high = self.unary()?;
        // No file is so long that this overflows.
        Some(high << low | self.bits(low)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_go_there_and_back() {
        let values: Vec<u64> = (0..400).map(|n| n * n * 7 % 1021).collect();
        for low in [0, 1, 5, 10, 20] {
            let mut writer = BitWriter::default();
            for value in &values {
                writer.rice(*value, low);
                writer.bits(*value, 11);
                writer.unary(*value % 70);
            }
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            for value in &values {
                assert_eq!(reader.rice(low), Some(*value));
                assert_eq!(reader.bits(11), Some(*value));
                assert_eq!(reader.unary(), Some(*value % 70));
            }
            assert!(reader.left() < 8);
            assert_eq!(reader.bits(8), None);
        }
        assert_eq!(BitReader::new(&[0xff; 9]).unary(), None);
        assert_eq!(BitReader::new(&[]).bits(1), None);
        assert_eq!(BitReader::new(&[]).bits(0), Some(0));
    }
}
