//! Public identifiers: a UUIDv7 in the database, `prefix_<32 hex digits>` everywhere outside it.

use uuid::{ContextV7, Uuid};

use crate::clock::Timestamp;

/// Why a string is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// It starts with something else.
    #[error("expected an id that starts with `{expected}_`")]
    Prefix {
        /// The prefix without its underscore.
        expected: &'static str,
    },
    /// The rest is not a UUID.
    #[error("the part after `{expected}_` must be 32 lower-case hexadecimal digits")]
    Body {
        /// The prefix without its underscore.
        expected: &'static str,
    },
}

/// Ids made in one process sort in the order in which they were made, also within a millisecond.
static ORDER: std::sync::Mutex<Order> = std::sync::Mutex::new(Order { context: ContextV7::new(), last: i64::MIN });
/// The engine's clock never steps back. A time so far before the last one is another clock's: several engines in one
/// process, as in tests, share no future.
const ANOTHER_CLOCK: i64 = 10_000_000;

struct Order {
    context: ContextV7,
    /// The last time, in microseconds.
    last: i64,
}

fn new_v7(now: Timestamp) -> Uuid {
    let mut order = ORDER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if now.micros().saturating_add(ANOTHER_CLOCK) < order.last {
        order.context = ContextV7::new();
    }
    order.last = now.micros();
    v7_in_order(&order.context, now)
}

fn v7_in_order(order: &ContextV7, now: Timestamp) -> Uuid {
    let micros = u64::try_from(now.micros()).unwrap_or(0);
    let (seconds, nanos) = (micros / 1_000_000, (micros % 1_000_000) * 1_000);
    Uuid::new_v7(uuid::Timestamp::from_unix(order, seconds, u32::try_from(nanos).unwrap_or(0)))
}

fn millis_of(id: Uuid) -> i64 {
    i64::try_from(id.as_u128() >> 80).unwrap_or(0)
}

fn parse(s: &str, expected: &'static str) -> Result<Uuid, ParseIdError> {
    let body =
        s.strip_prefix(expected).and_then(|rest| rest.strip_prefix('_')).ok_or(ParseIdError::Prefix { expected })?;
    let hex = body.len() == 32 && body.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !hex {
        return Err(ParseIdError::Body { expected });
    }
    Uuid::try_parse(body).map_err(|_| ParseIdError::Body { expected })
}

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What its text form starts with, before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A fresh id that carries `now` in milliseconds.
            pub fn generate(now: Timestamp) -> Self {
                Self(new_v7(now))
            }

            /// The id that stands in the database as `uuid`.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// What stands in the database.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// When it was made, to the millisecond.
            pub fn created_at(self) -> Timestamp {
                Timestamp::from_micros(millis_of(self.0) * 1_000)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}_{}", Self::PREFIX, self.0.as_simple())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                parse(s, Self::PREFIX).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let s = std::borrow::Cow::<'de, str>::deserialize(d)?;
                s.parse().map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "_[0-9a-f]{32}$")))
                    .into()
            }
        }
        impl utoipa::ToSchema for $name {}
    )+};
}

ids! {
    /// A run; a single-task run is its own task run.
    RunId = "run";
    /// An ingested event.
    EventId = "evt";
    /// A connected program that executes tasks.
    WorkerId = "wrk";
    /// What of a worker survives its reconnects.
    SessionId = "ses";
    /// An API token (its id, not its secret).
    TokenId = "tok";
    /// The isolation unit.
    TenantId = "ten";
    /// Bulk work on runs.
    JobId = "job";
    /// One engine process.
    NodeId = "node";
    /// One HTTP request, in its answer and in the logs.
    RequestId = "req";
}

/// How many shards tenants are hashed to; fixed when the database is created.
pub const SHARDS: i16 = 64;

impl TenantId {
    /// The shard that holds everything of this tenant. The low bits of a UUIDv7 are random.
    pub fn shard(self) -> i16 {
        i16::try_from(self.0.as_u128() % 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_refuses_neighbours() {
        let order = ContextV7::new();
        let id = RunId(v7_in_order(&order, Timestamp::from_micros(1_700_000_000_123_456)));
        assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
        assert_eq!(id.created_at().micros(), 1_700_000_000_123_000);
        assert!(id.to_string().parse::<EventId>().is_err());
        assert!(id.to_string().to_uppercase().parse::<RunId>().is_err());
        assert!(format!("{id}0").parse::<RunId>().is_err());
    }

    #[test]
    fn ids_of_one_instant_keep_their_order() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let ids: Vec<_> = (0..1_000).map(|_| RunId::generate(now)).collect();
        assert!(ids.windows(2).all(|w| w[0] < w[1]));
    }
}
