//! Many rows in one buffer, so that a chunk costs a few allocations and not one per cell.

/// The length that stands for NULL in front of a cell.
const NULL: u32 = u32::MAX;

/// The bytes of the length in front of each cell.
const LENGTH_BYTES: usize = 4;

/// Rows of one table, packed one behind the other.
///
/// Each cell is its length as four little-endian bytes, then its bytes; a length of `u32::MAX` is
/// NULL. Equal packed rows therefore have equal cells, which lets a chunk be compared by memory
/// first and brought to canonical form only where that differs.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl Rows {
    /// Makes an empty set.
    pub fn new() -> Self {
        Rows::default()
    }

    /// Packs rows that are packed already into as much memory as they take.
    pub fn of_packed<'a>(rows: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let (count, bytes) = rows
            .clone()
            .fold((0, 0), |(count, bytes), row| (count + 1, bytes + row.len()));
        let mut packed = Rows {
            data: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(count),
        };
        rows.for_each(|row| packed.push_packed(row));
        packed
    }

    /// Appends a cell to the row that is being built.
    ///
    /// # Panics
    /// If the cell is 4 GiB or longer, which no server sends.
    pub fn push_cell(&mut self, cell: Option<&[u8]>) {
        match cell {
            None => self.data.extend_from_slice(&NULL.to_le_bytes()),
            Some(bytes) => {
                let length = u32::try_from(bytes.len()).expect("a cell is shorter than 4 GiB");
                assert!(length != NULL, "a cell is shorter than 4 GiB");
                self.data.reserve(LENGTH_BYTES + bytes.len());
                self.data.extend_from_slice(&length.to_le_bytes());
                self.data.extend_from_slice(bytes);
            }
        }
    }

    /// Ends the row that is being built.
    pub fn end_row(&mut self) {
        self.ends.push(self.data.len());
    }

    /// Appends a whole row.
    pub fn push_row<'a>(&mut self, cells: impl IntoIterator<Item = Option<&'a [u8]>>) {
        for cell in cells {
            self.push_cell(cell);
        }
        self.end_row();
    }

    /// Appends a row that is already packed.
    pub fn push_packed(&mut self, row: &[u8]) {
        self.data.extend_from_slice(row);
        self.end_row();
    }

    /// Returns the number of finished rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Tells whether there is no finished row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the packed size in bytes, which is what memory bounds count.
    pub fn byte_len(&self) -> usize {
        self.data.len()
    }

    /// Returns how many bytes of memory are held, used or not.
    pub fn capacity(&self) -> usize {
        self.data.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// Returns the packed bytes of row `index`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn packed(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.data[start..self.ends[index]]
    }

    /// Returns the cells of row `index`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn cells(&self, index: usize) -> Cells<'_> {
        Cells::of(self.packed(index))
    }

    /// Returns each row's packed bytes in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|index| self.packed(index))
    }

    /// Keeps the first `count` rows.
    pub fn truncate(&mut self, count: usize) {
        self.ends.truncate(count);
        self.data.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// Returns the rows of several sets in the order of their bytes, each once.
    pub fn distinct<'a>(sets: impl IntoIterator<Item = &'a Rows>) -> Rows {
        let mut all: Vec<&[u8]> = sets.into_iter().flat_map(Rows::iter).collect();
        all.sort_unstable();
        all.dedup();
        Rows::of_packed(all.into_iter())
    }

    /// Takes out the last `count` rows, or all if there are fewer.
    pub fn pop(&mut self, count: usize) -> Vec<Vec<u8>> {
        let kept = self.len().saturating_sub(count);
        let popped = (kept..self.len()).map(|index| self.packed(index).to_vec());
        let popped = popped.collect();
        self.truncate(kept);
        popped
    }

    /// Forgets all rows but keeps the memory for the next ones.
    pub fn clear(&mut self) {
        self.data.clear();
        self.ends.clear();
    }
}

/// The cells of one packed row, in the table's layout order.
#[derive(Clone, Debug)]
pub struct Cells<'a> {
    rest: &'a [u8],
}

impl<'a> Cells<'a> {
    /// Reads the cells of a packed row.
    pub fn of(packed: &'a [u8]) -> Self {
        Cells { rest: packed }
    }

    /// Returns the packed bytes of the next `count` cells.
    pub fn prefix(packed: &'a [u8], count: usize) -> &'a [u8] {
        let mut cells = Cells::of(packed);
        for _ in 0..count {
            cells.next();
        }
        &packed[..packed.len() - cells.rest.len()]
    }
}

impl<'a> Iterator for Cells<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk::<LENGTH_BYTES>()?;
        let length = u32::from_le_bytes(*length);
        if length == NULL {
            self.rest = rest;
            return Some(None);
        }
        let (cell, rest) = rest.split_at(length as usize);
        self.rest = rest;
        Some(Some(cell))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_are_different_cells() {
        let mut rows = Rows::new();
        rows.push_row([None, Some(b"a".as_slice())]);
        rows.push_row([Some(b"".as_slice()), Some(b"a".as_slice())]);
        assert_ne!(rows.packed(0), rows.packed(1));
        assert_eq!(
            rows.cells(0).collect::<Vec<_>>(),
            [None, Some(b"a".as_slice())]
        );
        assert_eq!(rows.cells(1).next(), Some(Some(b"".as_slice())));
    }

    #[test]
    fn a_prefix_is_the_packed_key() {
        let mut rows = Rows::new();
        rows.push_row([Some(b"12".as_slice()), None, Some(b"x".as_slice())]);
        let prefix = Cells::prefix(rows.packed(0), 2);
        assert_eq!(
            Cells::of(prefix).collect::<Vec<_>>(),
            [Some(b"12".as_slice()), None]
        );
        assert_eq!(rows.byte_len(), 3 * LENGTH_BYTES + 3);
    }
}
