//! `status`: asks a running daemon how things stand, once or again and again.

mod document;
mod page;
mod render;
mod watch;

use super::reach::Side;
use super::{Console, Exit, Form};
use crate::client::{Body, Door};
use crate::config::Sources;
use document::Document;

pub(super) use watch::run as watch;

/// The document as it came and as it was read.
struct Answer {
    text: Body,
    document: Document,
}

pub(super) fn run(
    admin: Option<&str>,
    sources: &Sources,
    format: Form,
    console: &mut Console<'_>,
) -> Exit {
    let asked = Side::Operators
        .door(admin, sources)
        .and_then(|door| super::block_on(ask(&door)));
    match asked {
        Ok(Answer { text, document }) => {
            let columns = (console.size)().columns;
            console.print(&match format {
                Form::Text => render::render(&document, columns, console.out_colour),
                Form::Json => format!("{}\n", String::from_utf8_lossy(&text).trim_end()),
            });
            match document.has_live_token() {
                true => Exit::Done,
                false => Exit::TryAgain,
            }
        }
        Err((exit, why)) => console.end(exit, &why),
    }
}

/// The answer, or how to end and what to say.
async fn ask(door: &Door) -> Result<Answer, (Exit, String)> {
    let text = door
        .get("/status")
        .await
        .map_err(|failure| Side::Operators.told(&failure))?;
    match serde_json::from_slice(&text) {
        Ok(document) => Ok(Answer { text, document }),
        Err(error) => {
            let address = door.address();
            let why = format!("{address} gave no status that can be read ({error})");
            Err((Exit::Failed, why))
        }
    }
}

#[cfg(test)]
mod tests;
