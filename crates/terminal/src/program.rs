//! The file of this program.

use std::path::{Path, PathBuf};

use helve_domain::error::{Error, Result};

/// This program, to be started again. On Linux by the running file itself, so that it works even after a new build has
/// replaced it.
pub fn this_program() -> Result<PathBuf> {
    let own = Path::new("/proc/self/exe");
    if own.exists() {
        return Ok(own.to_owned());
    }
    std::env::current_exe().map_err(|e| Error::Internal(format!("this program cannot find itself: {e}")))
}
