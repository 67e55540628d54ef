//! Clients that each repeat one kind of action: events, parked runs, a pause.

mod events;
mod parks;
mod pauses;

pub use events::Events;
pub use parks::Parks;
pub use pauses::Pauses;
