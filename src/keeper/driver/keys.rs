//! The keys at hand, and when other ones are believed.
//!
//! A pair lies in two files, which nobody writes at one moment. So what a look finds in the place of the keys at hand is believed
//! when a look a second later finds the same; until then nothing is sent. What cannot be read at all leaves the keys at hand.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::issuer::{KeyError, KeyFiles, Keys, Look};
use crate::keeper::log::Event;

/// How often the files are read where nothing asks for it.
const EVERY: Duration = Duration::from_secs(5);

/// For so long new keys must stay the same before they are believed.
const SETTLED: Duration = Duration::from_secs(1);

/// How long reading may take: the files may lie on a disk that hangs. An attempt goes on with the keys at hand then.
const PATIENCE: Duration = Duration::from_millis(500);

/// For so long attempts are withheld because of files that change; after that they use the keys at hand.
const MOST_WITHHELD: Duration = Duration::from_secs(5);

pub(super) struct KeyRing {
    reader: Arc<Reader>,
    at_hand: Keys,
    /// Which pairs are there, as far as it was told.
    complete: Vec<bool>,
    /// What was found in the place of the keys at hand, and when for the first time.
    doubt: Option<(Keys, Instant)>,
    absent: usize,
    failing: bool,
    next_look: Instant,
    /// What people should read, not taken yet.
    news: Vec<Event>,
}

/// Reads in a thread that may wait for a disk. While one reading hangs, no other begins.
struct Reader {
    files: KeyFiles,
    one: Arc<Mutex<()>>,
    /// Since when attempts are withheld.
    withheld: StdMutex<Option<Instant>>,
}

impl Reader {
    /// What the files hold; `None` if it cannot be had in this time.
    async fn look(self: Arc<Self>, patience: Duration) -> Option<Look> {
        let look = async {
            let turn = Arc::clone(&self.one).lock_owned().await;
            let files = self.files.clone();
            let read = spawn_blocking(move || {
                let look = files.look();
                drop(turn);
                look
            });
            read.await.ok()
        };
        timeout(patience, look).await.ok().flatten()
    }

    /// How long ago the first attempt in a row was withheld; this may be the first.
    fn withheld_for(&self) -> Duration {
        let mut since = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now).elapsed()
    }

    /// The next attempt that is withheld is the first.
    fn begin_anew(&self) {
        *self.withheld.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl KeyRing {
    /// These keys were read just now.
    pub(super) fn new(files: KeyFiles, at_hand: Keys) -> Self {
        Self {
            reader: Arc::new(Reader {
                files,
                one: Arc::default(),
                withheld: StdMutex::default(),
            }),
            at_hand,
            complete: Vec::new(),
            doubt: None,
            absent: 0,
            failing: false,
            next_look: Instant::now(),
            news: Vec::new(),
        }
    }

    pub(super) fn at_hand(&self) -> &Keys {
        &self.at_hand
    }

    /// How many pairs of the settings were not there when it was last looked.
    pub(super) fn absent(&self) -> usize {
        self.absent
    }

    /// What people should read, once.
    pub(super) fn take_news(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.news)
    }

    /// When the files should be read again.
    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Reads the files.
    pub(super) fn look(&self) -> impl Future<Output = Option<Look>> + use<> {
        Arc::clone(&self.reader).look(PATIENCE)
    }

    /// Reads the files for an attempt: false if they hold other keys than those at hand, so that it should not be made with them.
    pub(super) fn still_so(&self, patience: Duration) -> impl Future<Output = bool> + use<> {
        let (reader, at_hand) = (Arc::clone(&self.reader), self.at_hand.clone());
        async move {
            let look = Arc::clone(&reader).look(patience.min(PATIENCE)).await;
            let found = look.and_then(|look| look.into_keys().ok());
            found.is_none_or(|found| found == at_hand) || reader.withheld_for() >= MOST_WITHHELD
        }
    }

    /// Takes in what a look found. True if the keys at hand are other ones now.
    pub(super) fn seen(&mut self, look: Option<Look>, now: Instant) -> bool {
        self.next_look = now + EVERY;
        let complete = look.as_ref().map(Look::complete).unwrap_or_default();
        let found = match look.map(Look::into_keys) {
            Some(Ok(keys)) => keys,
            Some(Err(error)) => {
                self.absent = complete.len();
                return self.nothing_there(Some(&error));
            }
            None => return self.nothing_there(None),
        };
        self.absent = complete.iter().filter(|there| !**there).count();
        if self.failing {
            self.failing = false;
            self.news.push(Event::KeysReadable);
        }
        if found == self.at_hand {
            self.settle();
            self.complete = complete;
            return false;
        }
        match self.doubt.take() {
            Some((before, since)) if before == found && now >= since + SETTLED => {
                self.at_hand = found;
                self.settle();
                self.tell(complete);
                true
            }
            same_or_other => {
                let since = same_or_other
                    .filter(|(before, _)| *before == found)
                    .map_or(now, |(_, since)| since);
                self.next_look = since + SETTLED;
                self.doubt = Some((found, since));
                false
            }
        }
    }

    fn nothing_there(&mut self, error: Option<&KeyError>) -> bool {
        self.doubt = None;
        if !self.failing {
            self.failing = true;
            let error = error.map_or("no answer".to_owned(), ToString::to_string);
            self.news.push(Event::KeysUnreadable(error));
        }
        false
    }

    fn settle(&mut self) {
        self.doubt = None;
        self.reader.begin_anew();
    }

    fn tell(&mut self, complete: Vec<bool>) {
        let pairs = self.complete.iter().zip(&complete).enumerate();
        let changed = |was: bool| {
            let changed = pairs
                .clone()
                .filter(move |(_, pair)| *pair == (&was, &!was));
            changed.map(|(index, _)| index).collect()
        };
        self.news.push(Event::KeysChanged {
            count: self.at_hand.count(),
            added: changed(false),
            removed: changed(true),
        });
        self.complete = complete;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};
    use tokio::time::advance;

    /// A ring over pairs of files in a folder; each name is that of a pair.
    fn ring(folder: &Path, pairs: &[&str]) -> KeyRing {
        let paths = |name: &&str| (folder.join(format!("{name}.id")), file(folder, name));
        let files = KeyFiles {
            pairs: pairs.iter().map(paths).collect(),
        };
        let at_hand = files.read().unwrap();
        KeyRing::new(files, at_hand)
    }

    fn file(folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("{name}.key"))
    }

    fn write(folder: &Path, name: &str, text: &str) {
        fs::write(folder.join(format!("{name}.id")), text).unwrap();
        fs::write(file(folder, name), text).unwrap();
    }

    /// Looks at the moment, and says the ids of new keys.
    fn looked(ring: &mut KeyRing, at: Instant) -> Option<Vec<String>> {
        let look = ring.reader.files.look();
        if !ring.seen(Some(look), at) {
            return None;
        }
        let keys = ring.at_hand();
        let id = |index| keys.pick(index).key_id.expose().to_owned();
        Some((0..keys.count()).map(id).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn new_keys_are_believed_once_they_have_stayed_the_same() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", "one");
        let mut ring = ring(folder.path(), &["a"]);
        let start = Instant::now();
        assert_eq!(looked(&mut ring, start), None);
        assert_eq!(ring.next_look(), start + EVERY);
        // Between the two files of a pair, and however often somebody looks.
        fs::write(folder.path().join("a.id"), "two").unwrap();
        assert_eq!(looked(&mut ring, start), None);
        assert_eq!(looked(&mut ring, start + SETTLED / 2), None);
        assert_eq!(ring.next_look(), start + SETTLED);
        fs::write(file(folder.path(), "a"), "two").unwrap();
        let written = start + SETTLED;
        assert_eq!(looked(&mut ring, written), None, "it is another pair again");
        assert_eq!(ring.next_look(), written + SETTLED);
        let keys = looked(&mut ring, written + SETTLED);
        assert_eq!(keys, Some(vec!["two".to_owned()]));
        assert_eq!(ring.at_hand().pick(0).api_key.expose(), "two");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_empty_while_it_is_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", "one");
        write(folder.path(), "b", "two");
        let mut ring = ring(folder.path(), &["a", "b"]);
        let start = Instant::now();
        fs::write(file(folder.path(), "b"), "").unwrap();
        assert_eq!(looked(&mut ring, start), None);
        fs::write(file(folder.path(), "b"), "two").unwrap();
        assert_eq!(looked(&mut ring, start + SETTLED), None);
        assert_eq!(ring.at_hand().count(), 2);
        assert!(ring.doubt.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn pairs_come_and_go_and_the_last_ones_stay_at_hand() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", "one");
        let mut ring = ring(folder.path(), &["a", "b"]);
        let mut now = Instant::now();
        assert_eq!(looked(&mut ring, now), None);
        assert_eq!(ring.absent(), 1);
        write(folder.path(), "b", "two");
        let mut settled = |ring: &mut KeyRing| {
            assert_eq!(looked(ring, now), None);
            now += SETTLED;
            looked(ring, now)
        };
        let both = Some(vec!["one".to_owned(), "two".to_owned()]);
        assert_eq!(settled(&mut ring), both);
        assert_eq!(ring.absent(), 0);
        fs::remove_file(folder.path().join("a.id")).unwrap();
        assert_eq!(settled(&mut ring), Some(vec!["two".to_owned()]));
        fs::remove_file(file(folder.path(), "b")).unwrap();
        assert_eq!(settled(&mut ring), None);
        assert_eq!(ring.absent(), 2);
        assert_eq!(ring.at_hand().pick(0).key_id.expose(), "two");
        assert!(ring.failing);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_is_withheld_for_files_that_change_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", "one");
        let mut ring = ring(folder.path(), &["a"]);
        let patience = Duration::from_secs(60);
        assert!(ring.still_so(patience).await);
        write(folder.path(), "a", "two");
        for _ in 0..10 {
            assert!(!ring.still_so(patience).await);
        }
        advance(MOST_WITHHELD).await;
        assert!(ring.still_so(patience).await);
        let now = Instant::now();
        assert_eq!(looked(&mut ring, now), None);
        assert!(looked(&mut ring, now + SETTLED).is_some());
        write(folder.path(), "a", "three");
        assert!(!ring.still_so(patience).await, "counted anew");
        fs::remove_file(file(folder.path(), "a")).unwrap();
        assert!(ring.still_so(patience).await, "there is nothing better");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_hangs_holds_no_attempt_up_and_begins_no_other() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "a", "one");
        let mut ring = ring(folder.path(), &["a"]);
        let hangs = Arc::clone(&ring.reader.one).lock_owned().await;
        write(folder.path(), "a", "two");
        assert!(ring.still_so(Duration::from_secs(60)).await);
        let look = ring.look().await;
        assert!(look.is_none());
        assert!(!ring.seen(look, Instant::now()) && ring.failing);
        drop(hangs);
        assert!(ring.look().await.is_some());
    }
}
