//! What only OceanBase answers: fences and how long they last.

use super::Session;
use crate::error::Result;
use crate::fence::{Fence, FenceRow, FenceState};

/// Reads the fence row of a task and the commit number of that row, which is the snapshot S.
///
/// # Errors
/// If the row cannot be read; none where the task has no row or rowproof no tables yet.
pub async fn newest_fence(session: &mut Session, task: &str) -> Result<Option<(FenceRow, Fence)>> {
    let sql = format!(
        "SELECT state, w, next_w, offsets, ora_rowscn FROM rowproof.fence WHERE task = '{task}'"
    );
    let rows = session.texts(sql).await?;
    Ok(rows.first().and_then(|row| fence_of(row)))
}

fn fence_of(row: &[Option<String>]) -> Option<(FenceRow, Fence)> {
    let [Some(state), Some(w), Some(next_w), Some(offsets), Some(s)] = row else {
        return None;
    };
    let row = FenceRow {
        state: FenceState::parse(state)?,
        w: w.parse().ok()?,
        next_w: next_w.parse().ok()?,
        offsets: serde_json::from_str(offsets).ok()?,
    };
    let fence = Fence {
        w: row.w,
        s: s.parse().ok()?,
    };
    Some((row, fence))
}

/// Returns for how many seconds old snapshots can be read, if the server says so.
pub async fn undo_retention_s(session: &mut Session) -> Result<Option<u64>> {
    let rows = session
        .texts("SHOW PARAMETERS LIKE 'undo_retention'")
        .await?;
    Ok(rows.first().and_then(|row| {
        // The columns before the name differ between editions; after it come type and value.
        let name = row
            .iter()
            .position(|cell| cell.as_deref() == Some("undo_retention"))?;
        row.get(name + 2)?.as_ref()?.parse().ok()
    }))
}

impl Session {
    /// Asserts that as of the fence's snapshot the fence row reads complete at the fence's W: this
    /// connection sees the target as the fence says. The snapshot never changes, so that once per
    /// connection is enough.
    ///
    /// # Errors
    /// With [`crate::ErrorKind::Expired`] if the snapshot cannot be read any more, or as a broken
    /// invariant if it shows something else.
    pub async fn assert_fence(&mut self, task: &str, fence: Fence) -> Result<()> {
        if self.asserted_fence() == Some(fence) {
            return Ok(());
        }
        let sql = format!(
            "SELECT state, w FROM rowproof.fence AS OF SNAPSHOT {} WHERE task = '{task}'",
            fence.s
        );
        let rows = self.texts(sql).await?;
        let wanted = [Some("complete".to_owned()), Some(fence.w.to_string())];
        if rows.first().is_some_and(|row| row.as_slice() == wanted) {
            self.set_asserted_fence(fence);
            return Ok(());
        }
        Err(crate::Error::new(
            crate::ErrorKind::Broken,
            format!(
                "INV-1: as of its own snapshot the fence row does not read complete at {fence}"
            ),
        )
        .advise("something else writes rowproof.fence; check who may"))
    }
}
