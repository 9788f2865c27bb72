//! The feed on disk: what Kafka may drop before a load is done is kept in the state directory.
//!
//! The spool is a row of files. Each begins with the offsets from which it continues the partitions,
//! so that the offsets of the next file say where it ends. Records follow as they came, each with its
//! length and a checksum. What is in the spool is continuous: it is only ever written on from exactly
//! where it ended, and Kafka must still hold that.
//!
//! INV-3: nothing but these offsets connects the spool with a task. If it is lost, whole or in part,
//! the feed is read from Kafka; if Kafka does not hold an offset any more, that is an error which names
//! it. A torn end is cut off and read from Kafka again. A foreign spool is refused.

mod fill;
mod segment;
mod writer;

pub use fill::fill;
pub(in crate::broker) use segment::Raw;

use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::feed::Offsets;
use segment::{Frame, Frames, Title, damaged, unreadable};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use writer::Writer;

/// The directory within the state directory.
const DIRECTORY: &str = "feed-spool";

/// The feed on disk, of one task.
#[derive(Clone, Debug)]
pub struct Spool {
    dir: PathBuf,
    owner: String,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    use_: Mutex<Use>,
    /// Whether what is written has lately reached the ends of all partitions.
    is_current: AtomicBool,
}

/// Who needs the spool, and whether it is being filled.
#[derive(Debug, Default)]
struct Use {
    needs: usize,
    is_filled: bool,
}

/// As long as there is one, the spool is filled.
#[derive(Debug)]
pub struct Need(Arc<Shared>);

impl Drop for Need {
    fn drop(&mut self) {
        self.0.lock().needs -= 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Use> {
        self.use_.lock().expect("nothing panics while it is held")
    }
}

/// Whoever fills the spool; dropped, nobody does.
#[derive(Debug)]
pub struct Filling {
    shared: Arc<Shared>,
    is_over: AtomicBool,
}

impl Filling {
    /// Tells whether the spool is still needed. If not, whoever needs it next has it filled anew.
    pub fn is_needed(&self) -> bool {
        let mut of = self.shared.lock();
        if of.needs == 0 && !self.is_over.swap(true, Ordering::Relaxed) {
            of.is_filled = false;
            self.shared.is_current.store(false, Ordering::Relaxed);
        }
        !self.is_over.load(Ordering::Relaxed)
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let mut of = self.shared.lock();
        if !self.is_over.load(Ordering::Relaxed) {
            of.is_filled = false;
            self.shared.is_current.store(false, Ordering::Relaxed);
        }
    }
}

impl Spool {
    /// Names the spool of a task, which need not be there.
    pub fn of(state_dir: &Path, state_id: &str, task: &str) -> Spool {
        Spool {
            dir: state_dir.join(DIRECTORY),
            owner: format!("{state_id} {task}"),
            shared: Arc::default(),
        }
    }

    /// Says that the spool is needed, and returns the right to fill it if nobody does.
    pub fn need(&self) -> (Need, Option<Filling>) {
        let mut of = self.shared.lock();
        of.needs += 1;
        let fill = !std::mem::replace(&mut of.is_filled, true);
        let filling = fill.then(|| Filling {
            shared: Arc::clone(&self.shared),
            is_over: AtomicBool::new(false),
        });
        (Need(Arc::clone(&self.shared)), filling)
    }

    /// Tells whether who has read all of the spool may go on with Kafka: nobody fills it, or it holds
    /// about all that Kafka does.
    fn may_be_left(&self) -> bool {
        !self.shared.lock().is_filled || self.is_current()
    }

    /// Tells whether the spool is filled and has lately reached the ends of all partitions.
    pub fn is_current(&self) -> bool {
        self.shared.is_current.load(Ordering::Relaxed)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:012}.feed"))
    }

    /// Returns the numbers of the files.
    ///
    /// # Errors
    /// If the directory cannot be read, or a file between others is gone.
    fn numbers(&self) -> Result<Vec<u64>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| unreadable(&self.dir, &error))?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry
                .map_err(|error| unreadable(&self.dir, &error))?
                .file_name();
            let name = name.to_string_lossy();
            let number: Option<u64> = name
                .strip_suffix(".feed")
                .and_then(|text| text.parse().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        match numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
            None => Ok(numbers),
            Some(pair) => Err(damaged(&self.path(pair[0] + 1), 0)),
        }
    }

    /// Tells whether nothing is spooled.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.numbers()?.is_empty())
    }

    /// Returns the bytes that the spool takes.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn bytes(&self) -> Result<u64> {
        let size = |number| std::fs::metadata(self.path(number)).map_or(0, |of| of.len());
        Ok(self.numbers()?.into_iter().map(size).sum())
    }

    /// Returns the first frame of a file that must have one.
    fn title(&self, number: u64) -> Result<(Frames, Title)> {
        let path = self.path(number);
        let frames = Frames::open(&path).map_err(|error| unreadable(&path, &error));
        let mut frames = frames?;
        match frames.title(&path, &self.owner)? {
            Some(title) if title.number == number => Ok((frames, title)),
            _ => Err(damaged(&path, 0)),
        }
    }

    /// Brings the spool in order after a death: cuts off a torn end. It must be called before anybody
    /// uses the spool.
    ///
    /// # Errors
    /// If it is foreign, or cannot be read and written.
    pub fn recover(&self) -> Result<()> {
        let Some(mut last) = self.numbers()?.last().copied() else {
            return Ok(());
        };
        let path = self.path(last);
        let frames = Frames::open(&path).map_err(|error| unreadable(&path, &error));
        if frames?.title(&path, &self.owner)?.is_none() {
            // Its beginning is made durable before anything is put behind it.
            self.remove(last)?;
            let Some(before) = last.checked_sub(1).filter(|n| self.path(*n).exists()) else {
                return Ok(());
            };
            last = before;
        }
        let (end, length) = self.end_of(last)?;
        let path = self.path(last);
        let cut = || {
            let file = File::options().write(true).open(&path)?;
            let torn = file.metadata()?.len() - length;
            if torn > 0 {
                tracing::warn!(torn, "the torn end of the feed's spool is cut off");
                file.set_len(length)?;
                file.sync_all()?;
            }
            Ok(())
        };
        cut().map_err(|error| unreadable(&path, &error))?;
        Writer::open(self, &end)?.finish(&end)
    }

    /// Returns where a file ends, by offsets and in bytes.
    fn end_of(&self, number: u64) -> Result<(Offsets, u64)> {
        let (mut frames, title) = self.title(number)?;
        let mut end = title.from;
        let mut payload = Vec::new();
        let path = self.path(number);
        loop {
            let frame = frames.next(&mut payload);
            if frame.map_err(|error| unreadable(&path, &error))? != Frame::Whole {
                return Ok((end, frames.at()));
            }
            let raw = Raw::unpack(&payload).ok_or_else(|| damaged(&path, frames.at()))?;
            if let Some(place) = end.number(raw.topic, raw.partition) {
                *end.at_mut(place) = raw.offset + 1;
            }
        }
    }

    /// Returns from where to where the spool holds the partitions.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn bounds(&self) -> Result<Option<(Offsets, Offsets)>> {
        let numbers = self.numbers()?;
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
            return Ok(None);
        };
        Ok(Some((self.title(*first)?.1.from, self.end_of(*last)?.0)))
    }

    /// Returns a reader of what the spool holds from these offsets on; none if it does not hold them,
    /// or nothing more than Kafka has to give.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(in crate::broker) fn reader(&self, from: &Offsets) -> Result<Option<Reader>> {
        let Some((first, end)) = self.bounds()? else {
            return Ok(None);
        };
        let at = |of: &Offsets, topic: &str, partition: usize| {
            of.at(topic, partition).unwrap_or_default()
        };
        // Topics that came later are in the spool from their beginning.
        let is_held =
            |(topic, partition, offset): (&str, usize, i64)| at(&first, topic, partition) <= offset;
        let is_ahead =
            |(topic, partition, offset): (&str, usize, i64)| at(&end, topic, partition) > offset;
        if !from.places().all(is_held) || !from.places().any(is_ahead) {
            return Ok(None);
        }
        let number = self.begin_at(from)?;
        Ok(Some(Reader {
            frames: self.title(number)?.0,
            spool: self.clone(),
            number,
            payload: Vec::new(),
        }))
    }

    /// Returns the last file that begins at or before these offsets on every partition.
    fn begin_at(&self, from: &Offsets) -> Result<u64> {
        let numbers = self.numbers()?;
        let mut begin = numbers.first().copied().unwrap_or_default();
        for number in numbers.into_iter().skip(1) {
            if !is_passed(&self.title(number)?.1.from, from) {
                break;
            }
            begin = number;
        }
        Ok(begin)
    }

    /// Removes the files that are of no use to whoever begins to read at these offsets.
    ///
    /// # Errors
    /// If they cannot be read or removed.
    pub fn release(&self, offsets: &Offsets) -> Result<()> {
        let numbers = self.numbers()?;
        for (number, next) in numbers.iter().zip(numbers.iter().skip(1)) {
            if !is_passed(&self.title(*next)?.1.from, offsets) {
                return Ok(());
            }
            self.remove(*number)?;
            failpoint::pass("spool-removed");
        }
        // The last file is empty unless somebody writes it; held, so that nobody begins to.
        let of = self.shared.lock();
        if let Some(last) = numbers.last().filter(|_| !of.is_filled)
            && is_passed(&self.end_of(*last)?.0, offsets)
        {
            self.remove(*last)?;
        }
        Ok(())
    }

    fn remove(&self, number: u64) -> Result<()> {
        let path = self.path(number);
        std::fs::remove_file(&path).map_err(|error| unreadable(&path, &error))
    }
}

/// Tells whether reading from `offsets` needs nothing that lies before `end`.
fn is_passed(end: &Offsets, offsets: &Offsets) -> bool {
    let mut ends = end.places();
    ends.all(|(topic, partition, end)| {
        let at = offsets.at(topic, partition);
        end == 0 || at.is_some_and(|offset| end <= offset)
    })
}

/// Reads the spool, which may still be filled.
#[derive(Debug)]
pub(in crate::broker) struct Reader {
    spool: Spool,
    number: u64,
    frames: Frames,
    payload: Vec<u8>,
}

impl Reader {
    /// Returns the next record; none if the spool has no more for now.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub fn next(&mut self) -> Result<Option<Raw<'_>>> {
        while !self.read_frame()? {
            let mut numbers = self.spool.numbers()?.into_iter();
            let Some(next) = numbers.find(|number| *number > self.number) else {
                return Ok(None);
            };
            // A file is written whole before the next one is made, so only now it is at its end.
            if self.read_frame()? {
                break;
            }
            if self.frames.is_torn() {
                return Err(damaged(&self.spool.path(self.number), self.frames.at()));
            }
            (self.frames, self.number) = (self.spool.title(next)?.0, next);
        }
        let raw = Raw::unpack(&self.payload);
        let damaged = || damaged(&self.spool.path(self.number), self.frames.at());
        raw.map(Some).ok_or_else(damaged)
    }

    fn read_frame(&mut self) -> Result<bool> {
        let path = || self.spool.path(self.number);
        match self.frames.next(&mut self.payload) {
            Ok(Frame::Whole) => Ok(true),
            Ok(Frame::End) => Ok(false),
            Ok(Frame::Damaged) => Err(damaged(&path(), self.frames.at())),
            Err(error) => Err(unreadable(&path(), &error)),
        }
    }

    /// Has the record that was returned last come once more.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn unread(&mut self) -> Result<()> {
        let unread = self.frames.unread(self.payload.len());
        unread.map_err(|error| unreadable(&self.spool.path(self.number), &error))
    }

    /// Tells whether who has read everything may go on with Kafka.
    pub fn may_be_left(&self) -> bool {
        self.spool.may_be_left()
    }
}

/// Makes the error of a disk that has no room.
fn full(dir: &Path, spooled: u64, free: u64, wanted: u64) -> Error {
    let mib = |bytes: u64| bytes >> 20;
    Error::new(
        ErrorKind::Refused,
        format!(
            "the feed cannot be kept on disk any longer: {} holds {} MiB of it, and {} MiB are free \
             where {} MiB must be; nothing is lost as long as Kafka keeps what follows",
            dir.display(),
            mib(spooled),
            mib(free),
            mib(wanted)
        ),
    )
    .advise(
        "make room, or raise the topic's retention above the time that the load takes, and run the \
         same command again; it goes on where it stopped",
    )
}

#[cfg(test)]
mod tests;
