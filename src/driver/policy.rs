//! Policies of the task against the tables that there are.

use super::precheck::Finding;
use crate::database::{Catalog, FollowedRow};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Table;
use crate::task::Task;

/// What a person does about a policy that is for no column.
const FIX: &str = "correct the column or type under [[policies]], or remove it; columns of a key are \
                   always compared strictly";

/// Makes the finding of a policy that is for no column in scope.
pub fn unused(policy: &str) -> Finding {
    Finding::error(
        format!("policy {policy} is for no column in scope"),
        "a policy that is misspelt would leave its column strict, or another one relaxed, unseen",
        FIX,
    )
}

/// Refuses a task with a policy that is for no column in scope.
///
/// # Errors
/// With the policies.
pub fn assert_used(task: &Task, wanted: &Catalog) -> Result<()> {
    let unused = task.scope.unused_policies(&wanted.tables);
    if unused.is_empty() {
        return Ok(());
    }
    let what = format!(
        "policy {} is for no column in scope",
        unused.join(", policy ")
    );
    Err(Error::new(ErrorKind::Usage, what).advise(FIX))
}

/// Tells whether a table is followed with other policies than it has in the task file now: its
/// batches are proven with those, and a verdict must not mix the two.
pub fn differ(followed: &FollowedRow, table: &Table) -> bool {
    let known = followed.table.as_ref();
    known.is_some_and(|known| known.policies() != table.policies())
}
