//! `helve openapi`: the description of the REST interface.

use super::out;
use crate::api;
use crate::error::Result;

pub(super) fn run() -> Result<()> {
    out::line(String::from_utf8_lossy(api::openapi_text()).trim_end())
}
