//! `/settings`: what is in force and where it came from, without secrets.

use hyper::Response;
use serde_json::{Value, json};

use super::{Admin, document};
use crate::listener::Body;

/// The settings as `bearerd check --format json` shows them: `settings` by path, each with `value` and `from`.
pub(super) struct Shown(Value);

impl Shown {
    pub(super) fn new(mut settings: Value) -> Self {
        // The keys are read again when they change, and this document is not.
        if let Some(document) = settings.as_object_mut() {
            document.remove("key_set");
        }
        Self(settings)
    }
}

impl Admin {
    /// All but the log's filter stays as it was at the start.
    pub(super) fn settings(&self) -> Response<Body> {
        let Some(Shown(settings)) = self.shown.as_deref() else {
            return super::Failure::NotFound.response();
        };
        let mut settings = settings.clone();
        if let Some(filter) = self.log.as_ref().and_then(|log| log.changed())
            && let Some(level) = settings.pointer_mut("/settings/log.level")
        {
            *level = json!({"value": filter, "from": "PUT /log"});
        }
        document("application/json", format!("{settings:#}\n"))
    }
}
