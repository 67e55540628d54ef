//! The verdict for people and for machines.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use super::Report;

impl Report {
    /// The numbers, for a machine.
    pub fn to_json(&self) -> Value {
        let findings: BTreeMap<_, _> = self.findings.iter().map(|(f, all)| (format!("{f:?}"), all)).collect();
        let played: BTreeMap<_, _> = self.played.iter().map(|(play, n)| (play.name(), n)).collect();
        json!({"accepted": self.accepted, "refused": self.refused, "unknown": self.maybe,
               "unknown_that_exist": self.recovered, "cancelled": self.cancelled, "executions": self.executions,
               "repeated_for_a_fault": self.justified, "faults": self.faults, "played": played, "findings": findings})
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "accepted {}, refused {}, unknown {} of which {} exist, cancelled {}, executed {}, repeated for a fault {}",
            self.accepted, self.refused, self.maybe, self.recovered, self.cancelled, self.executions, self.justified
        )?;
        let (resent, redelivered, superseded) = self.frames;
        writeln!(f, "  results resent {resent}, deliveries repeated {redelivered}, attempts superseded {superseded}")?;
        for (kind, n) in &self.faults {
            write!(f, "  {kind}: {n}")?;
            if self.is_clean() {
                write!(f, ", failure probability below {:.3} (95 %, 3/N)", (3.0 / f64::from(*n)).min(1.0))?;
            }
            writeln!(f)?;
        }
        let played: Vec<_> = self.played.iter().map(|(play, n)| format!("{} {n}", play.name())).collect();
        writeln!(f, "  played: {}", played.join(", "))?;
        for (finding, all) in &self.findings {
            writeln!(f, "  FOUND {finding:?}: {}", all.len())?;
            for what in all.iter().take(5) {
                writeln!(f, "      {what}")?;
            }
        }
        Ok(())
    }
}
