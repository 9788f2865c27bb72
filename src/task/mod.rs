//! The task: what the person wants migrated or compared, from one short file.

mod file;
mod pattern;
mod policy;
mod route;
mod scope;

pub use file::{ClaimCheck, Endpoint, FeedTask, Task, Tls};
pub use pattern::Pattern;
pub use policy::{PolicyFile, PolicyRule};
pub use route::{Filter, FilterFile, Route, RouteFile};
pub use scope::Scope;
