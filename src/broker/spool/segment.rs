//! The files of the spool: frames with length and checksum, the first of which says what the file is.

use crate::error::{Error, ErrorKind, Result};
use crate::feed::Offsets;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The bytes before each frame: its length, and the beginning of its hash.
const HEAD_BYTES: usize = 12;

/// How much is read at once.
const READ_BYTES: usize = 256 << 10;

/// A Kafka record as it came, with its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::broker) struct Raw<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition within the topic.
    pub partition: usize,
    /// The offset.
    pub offset: i64,
    /// The record's key.
    pub key: &'a [u8],
    /// The record's value.
    pub value: &'a [u8],
}

/// The first frame of a file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Title {
    /// The state directory and the task to which the spool belongs.
    pub owner: String,
    /// The number of the file.
    pub number: u64,
    /// From where each partition is continued in this file.
    pub from: Offsets,
}

/// What was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Frame {
    /// A frame.
    Whole,
    /// Nothing follows, or only the beginning of a frame, which may still be being written.
    End,
    /// What follows is no frame.
    Damaged,
}

/// Writes a frame and returns its size.
pub(super) fn write_frame(file: &mut impl Write, payload: &[u8]) -> io::Result<u64> {
    let length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(&checksum(payload))?;
    file.write_all(payload)?;
    Ok((HEAD_BYTES + payload.len()) as u64)
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(payload);
    let (beginning, _) = hash.as_bytes().split_at(8);
    beginning.try_into().expect("it was cut to eight bytes")
}

impl<'a> Raw<'a> {
    /// Appends the record to a buffer, as the payload of a frame.
    pub(super) fn pack(&self, into: &mut Vec<u8>) {
        let number = |of: usize| u32::try_from(of).expect("Kafka counts with 32 bits");
        into.extend(number(self.topic.len()).to_le_bytes());
        into.extend(number(self.partition).to_le_bytes());
        into.extend(self.offset.to_le_bytes());
        into.extend(number(self.key.len()).to_le_bytes());
        into.extend(self.topic.as_bytes());
        into.extend(self.key);
        into.extend(self.value);
    }

    /// Reads what [`Raw::pack`] wrote.
    pub(super) fn unpack(payload: &'a [u8]) -> Option<Raw<'a>> {
        let (topic, rest) = payload.split_first_chunk::<4>()?;
        let (partition, rest) = rest.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (key, rest) = rest.split_first_chunk::<4>()?;
        let (topic, rest) = rest.split_at_checked(u32::from_le_bytes(*topic) as usize)?;
        let (key, value) = rest.split_at_checked(u32::from_le_bytes(*key) as usize)?;
        Some(Raw {
            topic: str::from_utf8(topic).ok()?,
            partition: u32::from_le_bytes(*partition) as usize,
            offset: i64::from_le_bytes(*offset),
            key,
            value,
        })
    }
}

/// Reads the frames of a file, which may still grow.
#[derive(Debug)]
pub(super) struct Frames {
    file: BufReader<File>,
    /// Where the next frame begins.
    at: u64,
    /// The length of the file when it was looked at last.
    length: u64,
}

impl Frames {
    /// Opens a file.
    pub fn open(path: &Path) -> io::Result<Frames> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Frames {
            file: BufReader::with_capacity(READ_BYTES, file),
            at: 0,
            length,
        })
    }

    /// Returns where the next frame begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Tells whether something follows that is no whole frame.
    pub fn is_torn(&self) -> bool {
        self.at < self.length
    }

    /// Reads the next frame.
    pub fn next(&mut self, into: &mut Vec<u8>) -> io::Result<Frame> {
        if !self.has(HEAD_BYTES as u64)? {
            return Ok(Frame::End);
        }
        let mut head = [0; HEAD_BYTES];
        self.file.read_exact(&mut head)?;
        let (length, sum) = head.split_first_chunk::<4>().expect("the head is longer");
        let size = HEAD_BYTES as u64 + u64::from(u32::from_le_bytes(*length));
        if !self.has(size)? {
            self.go_back()?;
            return Ok(Frame::End);
        }
        into.resize(size as usize - HEAD_BYTES, 0);
        self.file.read_exact(into)?;
        if checksum(into) != sum {
            self.go_back()?;
            return Ok(Frame::Damaged);
        }
        self.at += size;
        Ok(Frame::Whole)
    }

    /// Goes back before the frame that was read last, whose payload had this length.
    pub fn unread(&mut self, payload: usize) -> io::Result<()> {
        self.at -= (HEAD_BYTES + payload) as u64;
        self.go_back()
    }

    fn has(&mut self, bytes: u64) -> io::Result<bool> {
        if self.at + bytes > self.length {
            self.length = self.file.get_ref().metadata()?.len();
        }
        Ok(self.at + bytes <= self.length)
    }

    fn go_back(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.at)).map(|_| ())
    }

    /// Reads the first frame; none if it is not whole.
    ///
    /// # Errors
    /// If the file cannot be read, or belongs to another state directory or task.
    pub fn title(&mut self, path: &Path, owner: &str) -> Result<Option<Title>> {
        let mut payload = Vec::new();
        let frame = self.next(&mut payload);
        if frame.map_err(|error| unreadable(path, &error))? != Frame::Whole {
            return Ok(None);
        }
        let title: Option<Title> = serde_json::from_slice(&payload).ok();
        match title {
            Some(title) if title.owner == owner => Ok(Some(title)),
            _ => Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{} is a part of the feed that belongs to another state directory or task",
                    path.display()
                ),
            )
            .advise(
                "move it away: what is missing then is read from Kafka, or said to be lost if \
                 Kafka does not hold it any more",
            )),
        }
    }
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!(
            "the feed's spool cannot be read: {}: {}",
            path.display(),
            error.kind()
        ),
    )
    .advise("see that the state directory can be read and written, and run the same command again")
}

pub(super) fn damaged(path: &Path, at: u64) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!(
            "the feed's spool is damaged: {} holds at byte {at} what rowproof did not write",
            path.display()
        ),
    )
    .advise(
        "restore the file; or move the directory feed-spool away: what is missing then is read from \
         Kafka, or said to be lost if Kafka does not hold it any more",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_record_comes_back_as_it_was(
            topic in "[a-z.-]{1,20}",
            partition in 0_usize..9_999,
            offset in 0_i64..i64::MAX,
            key in proptest::collection::vec(any::<u8>(), 0..40),
            value in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let raw = Raw { topic: &topic, partition, offset, key: &key, value: &value };
            let mut payload = Vec::new();
            raw.pack(&mut payload);
            prop_assert_eq!(Raw::unpack(&payload), Some(raw));
        }

        #[test]
        fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Raw::unpack(&bytes);
        }
    }
}
