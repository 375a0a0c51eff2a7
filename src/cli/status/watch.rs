//! `status --watch`: on a terminal drawn anew each second, elsewhere printed once for each change.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::super::reach::Side;
use super::super::serve::{in_runtime, until_signalled};
use super::super::{Console, Exit, Form, Size};
use super::page::{Page, Tone};
use super::render::render;
use super::{Answer, ask};
use crate::client::Door;
use crate::config::Sources;

const EACH: Duration = Duration::from_secs(1);

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";

pub(in super::super) fn run(
    admin: Option<&str>,
    sources: &Sources,
    format: Form,
    console: &mut Console<'_>,
) -> Exit {
    let door = match Side::Operators.door(admin, sources) {
        Ok(door) => door,
        Err((exit, why)) => return console.end(exit, &why),
    };
    let stop = CancellationToken::new();
    in_runtime(until_signalled(&stop, async {
        let drawn = console.out_terminal && format == Form::Text;
        tokio::select! {
            () = stop.cancelled() => {}
            () = watch(&door, format, drawn, console) => {}
        }
        if drawn {
            console.print(SHOW_CURSOR);
        }
        Exit::Done
    }))
}

/// Ends when nobody reads on.
async fn watch(door: &Door, format: Form, drawn: bool, console: &mut Console<'_>) {
    let mut ticks = interval(EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut screen, mut printed) = (Screen::default(), Printed::default());
    loop {
        ticks.tick().await;
        let answer = ask(door).await.map_err(|(_, why)| why);
        let read = match drawn {
            true => {
                let size = (console.size)();
                let text = match &answer {
                    Ok(answer) => render(&answer.document, size.columns, console.out_colour),
                    Err(why) => gone(why, size.columns, console.out_colour),
                };
                console.still_read(&screen.frame(&text, size))
            }
            false => printed.print(answer, format, console),
        };
        if !read {
            return;
        }
    }
}

/// What the last drawing left on the terminal.
#[derive(Default)]
pub(super) struct Screen {
    lines: usize,
    size: Option<Size>,
}

impl Screen {
    /// What draws this text over the last one. Every line is overwritten before the rest of it is cleared, so that nothing flickers.
    pub(super) fn frame(&mut self, text: &str, size: Size) -> String {
        let most = size
            .rows
            .map_or(usize::MAX, |rows| rows.saturating_sub(1).max(1));
        let begin = match self.size {
            None => HIDE_CURSOR.to_owned(),
            Some(last) if last == size && self.lines > 0 => format!("\x1b[{}A\r", self.lines),
            Some(last) if last == size => String::new(),
            // A terminal that was resized may have wrapped what is there.
            Some(_) => "\x1b[2J\x1b[H".to_owned(),
        };
        let lines: Vec<String> = text
            .lines()
            .take(most)
            .map(|line| format!("{line}\x1b[K\r\n"))
            .collect();
        (self.lines, self.size) = (lines.len(), Some(size));
        format!("{begin}{}\x1b[J", lines.concat())
    }
}

/// What is drawn in place of a status that cannot be had.
fn gone(why: &str, columns: usize, colour: bool) -> String {
    let mut page = Page::new(columns, colour);
    page.wrapped("GONE", why, Tone::Bad);
    page.text()
}

/// What was printed last.
#[derive(Default)]
struct Printed {
    answer: Option<Answer>,
    failure: Option<String>,
}

impl Printed {
    /// Prints what has changed; false if nobody reads on.
    fn print(
        &mut self,
        answer: Result<Answer, String>,
        format: Form,
        console: &mut Console<'_>,
    ) -> bool {
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                if self.failure.as_ref() != Some(&why) {
                    console.tell(&why);
                }
                self.failure = Some(why);
                return true;
            }
        };
        let back = self.failure.take().is_some();
        let last = self.answer.as_ref().map(|last| &last.document);
        if !back && last.is_some_and(|last| last.says_the_same_as(&answer.document)) {
            return true;
        }
        let text = match format {
            Form::Text => {
                let gap = if last.is_some() { "\n" } else { "" };
                let columns = (console.size)().columns;
                format!(
                    "{gap}{}",
                    render(&answer.document, columns, console.out_colour)
                )
            }
            Form::Json => {
                // Text in JSON has no line breaks of its own.
                let document = String::from_utf8_lossy(&answer.text);
                let line: String = document.lines().map(str::trim).collect();
                format!("{line}\n")
            }
        };
        self.answer = Some(answer);
        console.still_read(&text)
    }
}
