//! `helve openapi`: the description of the REST interface.

use helve_domain::error::Result;
use helve_terminal::out;

use crate::api;

pub(super) fn run() -> Result<()> {
    out::line(String::from_utf8_lossy(api::openapi_text()).trim_end())
}
