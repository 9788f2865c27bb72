//! The task: what the person wants migrated or compared, from one short file.

mod file;
mod pattern;
mod policy;
mod route;
mod sasl;
mod scope;
mod secret;
mod ticdc;
mod tls;

pub use file::{ClaimCheck, Endpoint, FeedTask, SpoolWhen, Task};
pub use pattern::Pattern;
pub use policy::{PolicyFile, PolicyRule};
pub use route::{Filter, FilterFile, Route, RouteFile};
pub use sasl::{Mechanism, Sasl};
pub use scope::Scope;
pub use ticdc::TiCdc;
pub use tls::{Tls, TlsFiles, TlsMode};
