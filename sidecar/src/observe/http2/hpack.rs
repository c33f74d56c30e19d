//! Header compression (RFC 7541), read only.
//!
//! Huffman's code is left to a crate; the rest is kept here, because what an observer needs of it is
//! not to be had: each field lent and not given, a bound on all memory that a peer can ask for, and
//! on the work for each byte.

mod static_table;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::VecDeque};

use octets::Octets;

use self::static_table::STATIC_TABLE;
use crate::observe::Lost;

/// What both sides begin with, in bytes (RFC 9113 section 6.5.2).
const DEFAULT_TABLE: usize = 4096;
/// The largest table an encoder may ask for, in bytes.
///
/// What its peer has announced (`SETTINGS_HEADER_TABLE_SIZE`) need not be known: an encoder that
/// goes beyond it is told so by its peer, and one that uses less says so by a size update.
pub(super) const LARGEST_TABLE: usize = 64 * 1024;
/// The most that the fields of one block may come to, in bytes, counted like those of the table.
pub(super) const LARGEST_LIST: usize = 256 * 1024;
/// What each field counts beyond its bytes (RFC 7541 section 4.1).
const OVERHEAD: usize = 32;

/// Reads the header blocks of one direction, all of them and in order: each may refer to fields of
/// those before it.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Fields that blocks may refer to, the newest first.
    table: VecDeque<Entry>,
    /// What they come to.
    size: usize,
    /// What they may come to.
    limit: usize,
}

/// A field in the table.
#[derive(Debug)]
struct Entry {
    /// Its name, and right after it its value.
    bytes: Box<[u8]>,
    /// Where the one ends and the other begins.
    name: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            limit: DEFAULT_TABLE,
        }
    }
}

impl Decoder {
    /// Reads a whole block, and lends each of its fields.
    ///
    /// # Errors
    /// [`Lost::Compression`] for what is no such block, or wants a larger table than there is to
    /// have; [`Lost::HeadTooLong`] for one that unfolds to too much. The decoder is of no use then.
    pub(super) fn decode(
        &mut self,
        mut block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Lost> {
        let mut list = 0;
        while let Some(first) = block.first() {
            match Representation::of(*first) {
                Representation::Indexed => {
                    let index = integer(&mut block, 7)?;
                    let (name, value) = self.get(index)?;
                    count(&mut list, name, value)?;
                    field(name, value);
                }
                Representation::Literal { is_indexed } => {
                    let index = integer(&mut block, if is_indexed { 6 } else { 4 })?;
                    let name = match index {
                        0 => string(&mut block)?,
                        _ => Cow::Borrowed(self.get(index)?.0),
                    };
                    let value = string(&mut block)?;
                    count(&mut list, &name, &value)?;
                    field(&name, &value);
                    if is_indexed {
                        let entry = Entry::new(&name, &value);
                        self.insert(entry);
                    }
                }
                // Only at the beginning of a block (RFC 7541 section 4.2).
                Representation::SizeUpdate if list > 0 => return Err(Lost::Compression),
                Representation::SizeUpdate => {
                    let limit = integer(&mut block, 5)?;
                    if limit > LARGEST_TABLE {
                        return Err(Lost::Compression);
                    }
                    self.limit = limit;
                    self.evict();
                }
            }
        }
        Ok(())
    }

    /// The field of this number, which counts from 1, first through the static table.
    fn get(&self, index: usize) -> Result<(&[u8], &[u8]), Lost> {
        let index = index.checked_sub(1).ok_or(Lost::Compression)?;
        if let Some((name, value)) = STATIC_TABLE.get(index) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.table.get(index - STATIC_TABLE.len());
        let entry = entry.ok_or(Lost::Compression)?;
        Ok(entry.bytes.split_at(entry.name))
    }

    fn insert(&mut self, entry: Entry) {
        self.size += entry.size();
        self.table.push_front(entry);
        self.evict();
    }

    /// Drops the oldest fields until the others fit.
    fn evict(&mut self) {
        while self.size > self.limit {
            let oldest = self.table.pop_back().expect("no field, no size");
            self.size -= oldest.size();
        }
    }
}

impl Entry {
    fn new(name: &[u8], value: &[u8]) -> Self {
        Self {
            bytes: [name, value].concat().into(),
            name: name.len(),
        }
    }

    fn size(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

/// What stands in a block (RFC 7541 section 6).
enum Representation {
    /// A field of the tables.
    Indexed,
    /// A field, which may have a name of the tables, and may be added to them.
    Literal { is_indexed: bool },
    /// How large the table may be from here on.
    SizeUpdate,
}

impl Representation {
    fn of(first: u8) -> Self {
        match first.leading_zeros() {
            0 => Self::Indexed,
            1 => Self::Literal { is_indexed: true },
            2 => Self::SizeUpdate,
            _ => Self::Literal { is_indexed: false },
        }
    }
}

/// Adds a field to what a block comes to.
fn count(list: &mut usize, name: &[u8], value: &[u8]) -> Result<(), Lost> {
    *list += name.len() + value.len() + OVERHEAD;
    if *list > LARGEST_LIST {
        return Err(Lost::HeadTooLong);
    }
    Ok(())
}

/// Takes an integer off the front, whose first byte has so many bits of it (RFC 7541 section 5.1).
///
/// Nothing here is a length or an index beyond 28 bits.
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Lost> {
    let mask = u8::MAX >> (8 - bits);
    let value = usize::from(byte(block)? & mask);
    if value < mask.into() {
        return Ok(value);
    }
    let mut more = 0;
    for shift in [0, 7, 14, 21] {
        let next = byte(block)?;
        more |= usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value + more);
        }
    }
    Err(Lost::Compression)
}

/// Takes a string off the front (RFC 7541 section 5.2).
fn string<'a>(block: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, Lost> {
    let is_huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or(Lost::Compression)?;
    *block = rest;
    if !is_huffman {
        return Ok(bytes.into());
    }
    let decoded = Octets::with_slice(bytes).get_huffman_decoded();
    decoded.map(Cow::Owned).map_err(|_| Lost::Compression)
}

fn byte(block: &mut &[u8]) -> Result<u8, Lost> {
    let (first, rest) = block.split_first().ok_or(Lost::Compression)?;
    *block = rest;
    Ok(*first)
}
