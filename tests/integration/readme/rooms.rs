//! The table of rooms: what each says that it is for, and which others `house` lets it use.

use super::{document, generated};
use crate::house::ARROWS;

#[test]
fn the_rooms_are_those_of_the_house() {
    let mut table = "| room | what it is for | may use |\n|---|---|---|\n".to_owned();
    for (room, uses) in ARROWS.iter().filter(|(room, _)| *room != "lib") {
        let code = document(&format!("src/{room}.rs"));
        let lines = code.lines().map_while(|line| line.strip_prefix("//! "));
        let purpose: Vec<&str> = lines.collect();
        let purpose = purpose.join(" ").replace(['[', ']'], "");
        assert!(!purpose.is_empty(), "{room}");
        let uses: Vec<String> = uses.iter().map(|it| format!("`{it}`")).collect();
        table.push_str(&format!("| `{room}` | {purpose} | {} |\n", uses.join(", ")));
    }
    generated("src/README.md", "rooms", &table);
}
