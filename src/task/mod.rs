//! The task: what the person wants migrated or compared, from one short file.

mod file;
mod scope;

pub use file::{Endpoint, FeedTask, Task, Tls};
pub use scope::Scope;
