//! `sandbox --write-settings`: key files and a settings file with which `serve` uses the sandbox.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::{self, Sources};
use crate::sandbox::Settings;

/// What a daemon needs to know of a sandbox, and where that is written.
pub(super) struct ForDaemon<'a> {
    pub(super) folder: &'a Path,
    pub(super) settings: Settings,
    /// Where the sandbox's key came from; `None` for a made-up one, which is written beside the
    /// settings.
    pub(super) key_files: Option<(PathBuf, PathBuf)>,
}

impl ForDaemon<'_> {
    /// Writes the files, none of which may be there yet, and tries the settings; returns their
    /// file.
    pub(super) fn write(&self, base_url: &str) -> Result<PathBuf, String> {
        let made = fs::create_dir_all(self.folder).and_then(|()| fs::canonicalize(self.folder));
        let folder = made.map_err(|why| {
            format!(
                "--write-settings: {} cannot be made ({why})",
                self.folder.display()
            )
        })?;
        let mut names = vec!["bearerd.toml"];
        if self.key_files.is_none() {
            names.extend(["key_id", "api_key"]);
        }
        // All of them or none.
        if let Some(there) = names
            .into_iter()
            .map(|it| folder.join(it))
            .find(|it| it.exists())
        {
            return Err(format!(
                "--write-settings: {} is there already, and is left alone; name a folder without it",
                there.display()
            ));
        }
        let (id, key) = match &self.key_files {
            Some((id, key)) => (absolute(id)?, absolute(key)?),
            None => {
                let key = self.settings.keys.first().ok_or("the sandbox has no key")?;
                let id_file = write_new(&folder.join("key_id"), &key.key_id)?;
                (id_file, write_new(&folder.join("api_key"), &key.api_key)?)
            }
        };
        let text = self.text(base_url, [&id, &key], &folder);
        let file = write_new(&folder.join("bearerd.toml"), &text)?;
        let none: [(OsString, OsString); 0] = [];
        let sources = Sources::new(Some(file.clone()), none, Vec::new());
        match config::read(&sources) {
            Ok(_) => Ok(file),
            Err(problems) => Err(format!(
                "`bearerd serve` would not take {}:\n{problems}",
                file.display()
            )),
        }
    }

    fn text(&self, base_url: &str, keys: [&Path; 2], folder: &Path) -> String {
        let settings = &self.settings;
        let text = |path: &Path| quoted(&path.display().to_string());
        let length = |length| humantime::format_duration(length).to_string();
        let mut lines = format!(
            "# For `bearerd serve` beside the sandbox at {base_url}.\n\
             [upstream]\naccount = {}\nbase_url = {base_url:?}\ntoken_lifetime = {:?}\nrevokes_previous = {}\n\n\
             [[upstream.keys]]\nkey_id_file = {}\napi_key_file = {}\n\n\
             [budget]\nlimit = {}\nwindow = {:?}\n\n\
             [record.file]\nfolder = {}\n",
            quoted(&settings.account),
            length(settings.token_lifetime),
            settings.revokes_previous,
            text(keys[0]),
            text(keys[1]),
            settings.limit,
            length(settings.window),
            text(&folder.join("state")),
        );
        // The lead is a tenth longer than the window; a token that lives no longer needs a shorter
        // one.
        if settings.token_lifetime <= settings.window / 10 * 11 {
            let lead = length(settings.token_lifetime / 2);
            lines.push_str(&format!(
                "\n[refresh]\n# The tokens of this sandbox live no longer than its window.\nlead = {lead:?}\nallow_short_lead = true\n"
            ));
        }
        lines
    }
}

/// A text of TOML. What it cannot hold, such as a control character, is found when the file is
/// tried.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|why| format!("{}: {why}", path.display()))
}

/// A file that was there already may be somebody's real key, so it is left alone.
fn write_new(path: &Path, text: &str) -> Result<PathBuf, String> {
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|why| {
        format!(
            "--write-settings: {} cannot be written ({why}); name a folder without it",
            path.display()
        )
    })?;
    Ok(path.to_owned())
}
