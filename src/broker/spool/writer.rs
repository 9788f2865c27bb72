//! Writing the spool.

use super::segment::{Frames, Raw, Title, unreadable, write_frame};
use super::{Spool, full};
use crate::error::Result;
use crate::failpoint;
use crate::feed::Offsets;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// The bytes at which a file ends.
const FILE_BYTES: usize = 64 << 20;

/// The bytes that the spool leaves free on its disk, for the journal and for everybody else.
const FREE_BYTES: u64 = 1 << 30;

/// After how many bytes it is looked whether the disk has room.
const LOOK_BYTES: u64 = 4 << 20;

/// Appends records. What was written is durable after [`Writer::sync`].
#[derive(Debug)]
pub(super) struct Writer {
    spool: Spool,
    file: BufWriter<File>,
    number: u64,
    /// The bytes of the file, and where its first record begins.
    bytes: u64,
    title_bytes: u64,
    unsynced: u64,
    unlooked: u64,
    free_bytes: u64,
    payload: Vec<u8>,
}

impl Writer {
    /// Goes on with the spool, whose end is at these offsets, or begins it there.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn open(spool: &Spool, from: &Offsets) -> Result<Writer> {
        let made = std::fs::create_dir_all(&spool.dir).and_then(|()| {
            // The directory's own entry.
            let parent = spool.dir.parent().unwrap_or(&spool.dir);
            File::open(parent)?.sync_all()
        });
        made.map_err(|error| unreadable(&spool.dir, &error))?;
        let last = spool.numbers()?.last().copied();
        let open = || match last {
            Some(last) => {
                let path = spool.path(last);
                let bytes = std::fs::metadata(&path)?.len();
                let title_bytes = title_bytes(&path)?;
                match bytes == title_bytes {
                    true => {
                        let file = File::options().append(true).open(&path)?;
                        Ok((file, last, bytes))
                    }
                    false => begin(spool, last + 1, from),
                }
            }
            None => begin(spool, 0, from),
        };
        let opened: io::Result<(File, u64, u64)> = open();
        let (file, number, bytes) = opened.map_err(|error| unreadable(&spool.dir, &error))?;
        Ok(Writer {
            spool: spool.clone(),
            file: BufWriter::with_capacity(256 << 10, file),
            number,
            bytes,
            title_bytes: bytes,
            unsynced: 0,
            unlooked: LOOK_BYTES,
            free_bytes: FREE_BYTES,
            payload: Vec::new(),
        })
    }

    /// Leaves this much free on the disk.
    #[cfg(test)]
    pub fn with_free_bytes(mut self, bytes: u64) -> Writer {
        self.free_bytes = bytes;
        self
    }

    /// Appends a record.
    ///
    /// # Errors
    /// If the disk has no room.
    pub fn append(&mut self, raw: &Raw<'_>) -> Result<()> {
        if self.unlooked >= LOOK_BYTES {
            self.assert_room()?;
            self.unlooked = 0;
        }
        self.payload.clear();
        raw.pack(&mut self.payload);
        let written = write_frame(&mut self.file, &self.payload);
        let written = written.map_err(|error| unreadable(&self.spool.dir, &error))?;
        self.bytes += written;
        self.unsynced += written;
        self.unlooked += written;
        Ok(())
    }

    fn assert_room(&self) -> Result<()> {
        let of = rustix::fs::statvfs(&self.spool.dir);
        let of = of.map_err(|error| unreadable(&self.spool.dir, &error.into()))?;
        let free = of.f_bavail.saturating_mul(of.f_frsize);
        match free >= self.free_bytes {
            true => Ok(()),
            false => Err(full(
                &self.spool.dir,
                self.spool.bytes()?,
                free,
                self.free_bytes,
            )),
        }
    }

    /// Returns the bytes that are not yet durable.
    pub fn unsynced(&self) -> u64 {
        self.unsynced
    }

    /// Makes durable what was appended, and begins a new file when this one is full; `at` is where the
    /// spool ends now.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn sync(&mut self, at: &Offsets) -> Result<()> {
        if self.unsynced > 0 {
            failpoint::pass("spool-before-sync");
            let synced = self
                .file
                .flush()
                .and_then(|()| self.file.get_ref().sync_data());
            synced.map_err(|error| unreadable(&self.spool.dir, &error))?;
            self.unsynced = 0;
            failpoint::pass("spool-synced");
        }
        let most = failpoint::size("ROWPROOF_SPOOL_FILE", FILE_BYTES) as u64;
        match self.bytes >= most {
            true => self.begin_file(at),
            false => Ok(()),
        }
    }

    /// Begins a new file, because this one is full or topics have come.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn begin_file(&mut self, at: &Offsets) -> Result<()> {
        let begun = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_data())
            .and_then(|()| begin(&self.spool, self.number + 1, at));
        let (file, number, bytes) = begun.map_err(|error| unreadable(&self.spool.dir, &error))?;
        self.file = BufWriter::with_capacity(256 << 10, file);
        (self.number, self.bytes, self.title_bytes, self.unsynced) = (number, bytes, bytes, 0);
        failpoint::pass("spool-file-begun");
        Ok(())
    }

    /// Makes all durable, and leaves an empty file at the end, so that the end is known.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn finish(mut self, at: &Offsets) -> Result<()> {
        self.sync(at)?;
        match self.bytes > self.title_bytes {
            true => self.begin_file(at),
            false => Ok(()),
        }
    }
}

/// Makes a file whose first frame is durable before anything is put behind it, and before the file has
/// its name: who looks at the files meanwhile sees none without it.
fn begin(spool: &Spool, number: u64, from: &Offsets) -> io::Result<(File, u64, u64)> {
    let title = Title {
        owner: spool.owner.clone(),
        number,
        from: from.clone(),
    };
    let title = serde_json::to_vec(&title)?;
    let path = spool.path(number);
    let unnamed = path.with_extension("new");
    // A death may have left one.
    match std::fs::remove_file(&unnamed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .create_new(true)
        .append(true)
        .open(&unnamed)?;
    let mut frame = Vec::new();
    let bytes = write_frame(&mut frame, &title)?;
    file.write_all(&frame)?;
    file.sync_all()?;
    std::fs::rename(&unnamed, &path)?;
    File::open(&spool.dir)?.sync_all()?;
    Ok((file, number, bytes))
}

/// Returns where the first record of a file begins.
fn title_bytes(path: &Path) -> io::Result<u64> {
    let mut frames = Frames::open(path)?;
    frames.next(&mut Vec::new())?;
    Ok(frames.at())
}
