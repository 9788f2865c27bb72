//! Rows on disk, when they do not fit into memory.

use super::Rows;
use crate::error::{Error, ErrorKind, Result};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

/// The bytes of a row's length, which stands before it.
const LENGTH_BYTES: usize = size_of::<u64>();

/// A file of packed rows that is written once and may be read several times.
///
/// It has no name: it is gone with the process, however that ends.
#[derive(Debug)]
pub struct Spool {
    file: BufWriter<File>,
    rows: usize,
    scratch: Rows,
}

/// Where a row of a file begins; that of the first one by default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Place {
    row: usize,
    byte: u64,
}

impl Spool {
    /// Makes an empty one in a directory, which must exist.
    ///
    /// # Errors
    /// If no file can be made.
    pub fn new(dir: &Path) -> Result<Spool> {
        let file = tempfile::tempfile_in(dir).map_err(|error| disk(&error))?;
        Ok(Spool {
            file: BufWriter::new(file),
            rows: 0,
            scratch: Rows::new(),
        })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// If it cannot be written, for example because the disk is full.
    pub fn push<'a>(&mut self, cells: impl IntoIterator<Item = Option<&'a [u8]>>) -> Result<()> {
        let mut row = std::mem::take(&mut self.scratch);
        row.clear();
        row.push_row(cells);
        let pushed = self.push_packed(row.packed(0));
        self.scratch = row;
        pushed
    }

    /// Appends a row that is already packed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn push_packed(&mut self, row: &[u8]) -> Result<()> {
        let length = (row.len() as u64).to_le_bytes();
        let written = self.file.write_all(&length);
        written
            .and_then(|()| self.file.write_all(row))
            .map_err(|error| disk(&error))?;
        self.rows += 1;
        Ok(())
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Calls `take` with each packed row, in the order in which they were written.
    ///
    /// # Errors
    /// If the file cannot be read, or with the first error of `take`.
    pub fn for_each(&mut self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let all = |row: &[u8]| take(row).map(|()| true);
        self.for_each_from(Place::default(), all).map(|_| ())
    }

    /// Calls `take` with each packed row from a place on, until it does not want one, and returns the place
    /// of that.
    ///
    /// # Errors
    /// As [`Spool::for_each`].
    pub fn for_each_from(
        &mut self,
        mut place: Place,
        mut take: impl FnMut(&[u8]) -> Result<bool>,
    ) -> Result<Place> {
        self.file.flush().map_err(|error| disk(&error))?;
        let file = self.file.get_mut();
        file.seek(io::SeekFrom::Start(place.byte))
            .map_err(|error| disk(&error))?;
        let mut reader = BufReader::new(file);
        let mut row = Vec::new();
        while place.row < self.rows {
            read_row(&mut reader, &mut row).map_err(|error| disk(&error))?;
            if !take(&row)? {
                break;
            }
            place.row += 1;
            place.byte += (LENGTH_BYTES + row.len()) as u64;
        }
        // What is pushed later must not overwrite what was read.
        let file = self.file.get_mut();
        file.seek(io::SeekFrom::End(0))
            .map_err(|error| disk(&error))?;
        Ok(place)
    }
}

fn read_row(reader: &mut impl Read, row: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; LENGTH_BYTES];
    reader.read_exact(&mut length)?;
    row.resize(u64::from_le_bytes(length) as usize, 0);
    reader.read_exact(row)
}

fn disk(error: &io::Error) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!(
            "rows that do not fit into memory cannot be kept on disk: {}",
            error.kind()
        ),
    )
    .advise("make room in the state directory, and run the same command again")
}

#[cfg(test)]
mod tests {
    use super::super::Cells;
    use super::*;

    fn texts(spool: &mut Spool) -> Vec<Vec<Option<String>>> {
        let mut rows = Vec::new();
        let text = |cell: &[u8]| String::from_utf8(cell.to_vec()).expect("text");
        let read = spool.for_each(|row| {
            rows.push(Cells::of(row).map(|cell| cell.map(text)).collect());
            Ok(())
        });
        read.expect("a readable file");
        rows
    }

    #[test]
    fn rows_come_back_as_often_as_they_are_read_and_more_may_follow() {
        let mut spool = Spool::new(&std::env::temp_dir()).expect("a file");
        spool.push([Some(b"a".as_slice()), None]).expect("room");
        let first = vec![Some("a".to_owned()), None];
        assert_eq!(texts(&mut spool), std::slice::from_ref(&first));
        spool.push([Some(b"".as_slice())]).expect("room");
        let second = vec![Some(String::new())];
        let both = [first, second];
        assert_eq!(texts(&mut spool), both);
        assert_eq!(texts(&mut spool), both);
    }

    #[test]
    fn rows_may_be_read_in_pieces() {
        let mut spool = Spool::new(&std::env::temp_dir()).expect("a file");
        for row in 0..10_u8 {
            spool.push([Some(&[row][..])]).expect("room");
        }
        let (mut place, mut pieces) = (Place::default(), Vec::new());
        for end in [4, 4, 9, 20] {
            let mut piece = Vec::new();
            let read = spool.for_each_from(place, |row| {
                let cell = Cells::of(row).next().flatten().expect("a cell")[0];
                let wanted = cell < end;
                piece.extend(wanted.then_some(cell));
                Ok(wanted)
            });
            place = read.expect("a readable file");
            pieces.push(piece);
        }
        assert_eq!(
            pieces,
            [vec![0, 1, 2, 3], vec![], vec![4, 5, 6, 7, 8], vec![9]]
        );
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error_that_says_so() {
        let error = Spool::new(Path::new("/nonexistent")).expect_err("no such directory");
        assert!(error.to_string().contains("state directory"), "{error}");
    }
}
