//! A log that makes nobody wait: lines go through a bounded queue to a thread that writes them.
//!
//! Where nobody reads the log, or reads it too slowly, lines are dropped and counted, and the daemon goes on serving.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::{Format, json_line};

/// So many lines of the log may wait to be written.
pub(super) const LINES: usize = 1024;

/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);

enum Message {
    Line(Vec<u8>),
    /// Answered once every line before it is written.
    Flush(SyncSender<()>),
}

/// Where the log's lines go in.
#[derive(Clone)]
pub(super) struct Queue {
    messages: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// Waits for the last lines when it is dropped, but not long.
pub struct LastLines(Queue);

impl Queue {
    /// Starts the thread that writes; so many lines may wait for it. Keep what comes with the queue until the process ends.
    /// `missed` makes the line in the place of those that were dropped, without its end.
    pub(super) fn start(
        name: &str,
        lines: usize,
        out: impl Write + Send + 'static,
        missed: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<(Self, LastLines)> {
        let (messages, receiver) = sync_channel(lines);
        let queue = Self {
            messages,
            dropped: Arc::default(),
        };
        let dropped = Arc::clone(&queue.dropped);
        let writing = move || write_all(&receiver, out, missed, &dropped);
        thread::Builder::new().name(name.into()).spawn(writing)?;
        Ok((queue.clone(), LastLines(queue)))
    }

    /// Sends a line, or drops it where there is no room.
    pub(super) fn send(&self, line: Vec<u8>) {
        if let Err(TrySendError::Full(_)) = self.messages.try_send(Message::Line(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_all(
    messages: &Receiver<Message>,
    mut out: impl Write,
    missed: impl Fn(u64) -> String,
    dropped: &AtomicU64,
) {
    let mut lost = 0;
    for message in messages {
        // What cannot be written is told once something can.
        match message {
            Message::Line(line) => lost += u64::from(out.write_all(&line).is_err()),
            Message::Flush(done) => {
                let _nobody_is_left_to_be_told = out.flush();
                let _nobody_waits = done.try_send(());
            }
        }
        lost += dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let line = format!("{}\n", missed(lost));
            if out.write_all(line.as_bytes()).is_ok() {
                lost = 0;
            }
        }
    }
}

/// The line in the place of those that were dropped. It looks like the others: a machine reads every line.
pub(super) fn missed(lost: u64, format: Format) -> String {
    const MESSAGE: &str = "lines of the log were dropped: nobody read them in time";
    match format {
        Format::Text => format!("{lost} {MESSAGE}"),
        Format::Json => {
            let mut line = json_line(Level::WARN, module_path!(), MESSAGE);
            line["lines"] = lost.into();
            line.to_string()
        }
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            queue: self,
            text: Vec::with_capacity(256),
        }
    }
}

/// One line on its way into the queue, sent when it is dropped.
pub(super) struct Line<'a> {
    queue: &'a Queue,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.queue.send(std::mem::take(&mut self.text));
    }
}

impl Drop for LastLines {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        // Where the queue is full nobody reads, and there is nothing to wait for.
        if self.0.messages.try_send(Message::Flush(done)).is_ok() {
            let _in_time = written.recv_timeout(LAST_LINES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A reader that takes nothing until it is told to.
    struct Stuck(Receiver<()>, Page);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _released = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(out: impl Write + Send + 'static, format: Format) -> io::Result<(Queue, LastLines)> {
        Queue::start("log", LINES, out, move |lost| missed(lost, format))
    }

    #[test]
    fn every_line_is_written_before_the_end() {
        let page = Page::default();
        let (queue, last) = start(page.clone(), Format::Text).unwrap();
        for number in 0..100 {
            writeln!(queue.make_writer(), "line {number}").unwrap();
        }
        drop(last);
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 100);
        assert!(text.ends_with("line 99\n"));
    }

    /// What a reader finds that was stuck while five thousand lines were written.
    fn missed_by_a_stuck_reader(format: Format) -> String {
        let page = Page::default();
        let (release, released) = channel();
        let stuck = Stuck(released, page.clone());
        let (queue, last) = start(stuck, format).unwrap();
        // This would never end if a line waited for its reader.
        for number in 0..5_000 {
            writeln!(queue.make_writer(), "line {number}").unwrap();
        }
        drop(release);
        drop(last);
        drop(queue);
        let deadline = std::iter::repeat_with(|| {
            thread::yield_now();
            String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
        });
        let text = deadline
            .take(10_000_000)
            .find(|text| text.contains("nobody read them in time") && text.ends_with('\n'))
            .unwrap();
        assert!(text.starts_with("line 0\n"));
        let told = text.lines().find(|line| line.contains("were dropped"));
        told.unwrap().to_owned()
    }

    #[test]
    fn a_reader_that_is_stuck_makes_nobody_wait_and_is_told_what_it_missed() {
        let told = missed_by_a_stuck_reader(Format::Text);
        assert!(
            told.ends_with(" lines of the log were dropped: nobody read them in time"),
            "{told}"
        );
    }

    /// A disk that is full for so many writes.
    struct Full(u32, Page);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return self.1.write(bytes);
            }
            self.0 -= 1;
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_did_not_take_is_told_once_there_is_room() {
        let page = Page::default();
        // The first two lines are not taken, nor is what would tell of the first.
        let full = Full(3, page.clone());
        let (queue, last) = start(full, Format::Text).unwrap();
        for number in 0..4 {
            queue.send(format!("line {number}\n").into_bytes());
        }
        drop((queue, last));
        let whole = std::iter::repeat_with(|| {
            thread::yield_now();
            String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
        });
        let text = whole.take(10_000_000).find(|text| text.contains("line 3"));
        let expected = [&missed(2, Format::Text), "line 2", "line 3"];
        assert_eq!(text.unwrap().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_was_missed_is_told_in_the_form_of_the_other_lines() {
        let told = missed_by_a_stuck_reader(Format::Json);
        let line: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["target"], "bearerd::telemetry::queue");
        assert!(line["lines"].as_u64().unwrap() > 3_000, "{told}");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{told}");
    }
}
