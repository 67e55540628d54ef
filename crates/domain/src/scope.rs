//! What a token may do.

use crate::error::{Error, Result};

/// A set of scopes. `admin` includes all others, `write` includes `read`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(i16);

/// One scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything in the tenant.
    Admin,
    /// Change: workflows, runs, events.
    Write,
    /// Look.
    Read,
    /// Hold a worker socket.
    Worker,
}

impl Scope {
    /// Every scope, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Write, Self::Read, Self::Worker];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Write => "write",
            Self::Read => "read",
            Self::Worker => "worker",
        }
    }

    const fn bit(self) -> i16 {
        match self {
            Self::Admin => 1,
            Self::Write => 2,
            Self::Read => 4,
            Self::Worker => 8,
        }
    }
}

impl Scopes {
    /// Everything.
    pub const ADMIN: Self = Self(1);

    /// The set of these scopes.
    pub fn of(scopes: &[Scope]) -> Self {
        Self(scopes.iter().fold(0, |bits, s| bits | s.bit()))
    }

    /// Reads names separated by commas.
    pub fn parse(text: &str) -> Result<Self> {
        let mut bits = 0;
        for name in text.split(',').map(str::trim) {
            let scope = Scope::ALL.into_iter().find(|s| s.as_str() == name).ok_or_else(|| {
                Error::field("/scopes", format!("`{name}` is not a scope: expected admin, write, read or worker"))
            })?;
            bits |= scope.bit();
        }
        Ok(Self(bits))
    }

    /// What stands in the database.
    pub const fn bits(self) -> i16 {
        self.0
    }

    /// From what stands in the database.
    pub const fn from_bits(bits: i16) -> Self {
        Self(bits)
    }

    /// The scopes by name.
    pub fn names(self) -> Vec<&'static str> {
        Scope::ALL.into_iter().filter(|s| self.0 & s.bit() != 0).map(Scope::as_str).collect()
    }

    /// Whether the set includes `scope`.
    pub const fn allow(self, scope: Scope) -> bool {
        let implied = match scope {
            Scope::Read => Scope::Write.bit(),
            Scope::Admin | Scope::Write | Scope::Worker => 0,
        };
        self.0 & (scope.bit() | Scope::Admin.bit() | implied) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_includes_all_and_write_includes_read() {
        assert!(Scope::ALL.into_iter().all(|s| Scopes::ADMIN.allow(s)));
        let write = Scopes::parse("write").unwrap();
        assert!(write.allow(Scope::Read) && write.allow(Scope::Write));
        assert!(!write.allow(Scope::Worker) && !write.allow(Scope::Admin));
        let worker = Scopes::parse("worker").unwrap();
        assert!(!worker.allow(Scope::Read) && !worker.allow(Scope::Write));
        assert!(Scopes::parse("root").is_err());
        assert_eq!(Scopes::parse("read, worker").unwrap().names(), ["read", "worker"]);
    }
}
