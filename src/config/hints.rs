//! What somebody may have meant by a name that no setting has. Nothing is repeated but names of
//! settings.

use std::ops::Range;

use super::keys::{self, KEYS, Key, PREFIX};

/// Where to look if nothing comes near.
const TABLE: &str = "see the table of settings in deploy/settings.md";

/// What stands where another form of the same thing belongs.
const OTHER_FORMS: &[(&str, &str)] = &[
    ("keys", "[[upstream.keys]]"),
    ("key", "[[upstream.keys]]"),
    ("upstream.key", "[[upstream.keys]]"),
    ("caller", "[callers.NAME]"),
    (
        "upstream.key_id_file",
        "key_id_file under [[upstream.keys]]",
    ),
    (
        "upstream.api_key_file",
        "api_key_file under [[upstream.keys]]",
    ),
];

/// For the path of a file's setting.
pub(super) fn of_path(path: &str) -> String {
    let form = OTHER_FORMS.iter().find(|(wrong, _)| *wrong == path);
    let meant = form.map(|(_, form)| (*form).to_owned());
    match meant.or_else(|| keys::meant(path)) {
        Some(meant) => format!("did you mean {meant}?"),
        None => TABLE.to_owned(),
    }
}

/// For a variable of the environment.
pub(super) fn of_variable(name: &str) -> String {
    let short = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase();
    let distance = |key: &&Key| strsim::osa_distance(&key.env(), name);
    let meant = principal(&short).map(keys::env_name).or_else(|| {
        let near = KEYS.iter().min_by_key(distance);
        let near = near.filter(|key| distance(key) <= 4).map(Key::env);
        near.or_else(|| keys::meant(&short.replace("__", ".")).map(|path| keys::env_name(&path)))
    });
    match meant {
        Some(meant) => format!("did you mean {meant}?"),
        None => "the form is BEARERD_SECTION__KEY".to_owned(),
    }
}

/// The setting that a whole section's name stands for, as in `BEARERD_LOG=debug`.
fn principal(section: &str) -> Option<&'static str> {
    if section == "log" {
        return Some("log.level");
    }
    let mut keys = KEYS.iter().map(|key| key.path);
    keys.find(|path| {
        path.strip_prefix(section)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// What is there twice at this place of a file that is not TOML because of it, if it has the name
/// of a setting or section.
pub(super) fn of_duplicate(text: &str, span: Option<Range<usize>>) -> Option<String> {
    let start = span?.start;
    let line_start = text.get(..start)?.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(line_start..)?.lines().next()?.trim();
    let table = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    if let Some((name, _)) = table.filter(|(name, _)| !name.starts_with('[')) {
        let name = name.trim();
        return is_known(name).then(|| {
            format!("the table [{name}] is there twice; write what is below both under one")
        });
    }
    let (name, _) = line.split_once('=')?;
    let name = name.trim();
    let known = |key: &Key| key.path.rsplit('.').next() == Some(name) || key.path == name;
    let found = KEYS.iter().any(known);
    found.then(|| format!("{name} is there twice; keep one of them"))
}

fn is_known(name: &str) -> bool {
    // A caller's name is an operator's own, and short.
    let caller = name
        .strip_prefix("callers.")
        .is_some_and(super::problems::is_name);
    caller || keys::find(name).is_some() || keys::is_section(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_sections_name_stands_for_its_first_setting() {
        for (name, meant) in [
            ("BEARERD_LOG", "BEARERD_LOG__LEVEL"),
            ("BEARERD_HTTP", "BEARERD_HTTP__LISTEN"),
            ("BEARERD_UPSTREAM", "BEARERD_UPSTREAM__ACCOUNT"),
            ("BEARERD_UPSTREAM_BASE_URL", "BEARERD_UPSTREAM__BASE_URL"),
            (
                "BEARERD_UPSTREAM__API_KEY_FILE",
                "BEARERD_UPSTREAM__KEYS__0__API_KEY_FILE",
            ),
        ] {
            assert_eq!(of_variable(name), format!("did you mean {meant}?"));
        }
        assert!(of_variable("BEARERD_WHOLLY_OTHER_THING").contains("SECTION__KEY"));
    }

    #[test]
    fn what_is_there_twice_is_named_if_it_is_a_name_of_ours() {
        let told = |text: &str| {
            let error = text.parse::<toml::Table>().unwrap_err();
            of_duplicate(text, error.span())
        };
        let http = told("[http]\nlisten = []\n[grpc]\n[http]\nhosts = []\n").unwrap();
        assert!(
            http.starts_with("the table [http] is there twice"),
            "{http}"
        );
        let nested = told("[record.file]\n[record.file] # again\n").unwrap();
        assert!(nested.contains("[record.file]"), "{nested}");
        let caller = told("[callers.shop]\n[callers.shop]\n").unwrap();
        assert!(caller.contains("[callers.shop]"), "{caller}");
        let key = told("[budget]\nlimit = 1\nlimit = 2\n").unwrap();
        assert!(key.starts_with("limit is there twice"), "{key}");
        for secret in ["planted = 1\nplanted = 2\n", "[planted]\n[planted]\n"] {
            assert_eq!(told(secret), None);
        }
    }
}
