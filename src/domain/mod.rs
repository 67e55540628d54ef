//! Pure rules: definitions, states, retries, limits. No tokio, no axum, no SQL.

pub mod change;
pub mod definition;
pub mod delivery;
pub mod duration;
pub mod event;
pub mod job;
pub mod json;
pub mod labels;
pub mod limits;
pub mod live;
pub mod name;
pub mod offer;
pub mod pause;
pub mod retention;
pub mod retry;
pub mod run;
pub mod schema;
pub mod scope;
pub mod span;
pub mod status;
pub mod ticket;
pub mod trace;
pub mod why;
