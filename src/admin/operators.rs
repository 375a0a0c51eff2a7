//! Whose processes are answered on admin Unix sockets.

use super::Settings;
use crate::listener::{Owner, Peer};

/// The users and groups that the settings name; with none, the rights on the socket's file decide alone.
pub(super) struct Operators {
    uids: Box<[u32]>,
    gids: Box<[u32]>,
}

impl Operators {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            uids: settings.uids.as_slice().into(),
            gids: settings.gids.as_slice().into(),
        }
    }

    /// True if this peer is answered at all. TCP has rules of its own.
    pub(super) fn include(&self, peer: Peer) -> bool {
        match peer {
            Peer::Loopback(_) | Peer::Other(_) => true,
            Peer::Unix(_) if self.uids.is_empty() && self.gids.is_empty() => true,
            Peer::Unix(owner) => self.name(owner),
        }
    }

    /// True if this peer may change the record: on a Unix socket, as somebody whom the settings name or as our own user.
    pub(super) fn may_edit(&self, peer: Peer) -> bool {
        match peer {
            Peer::Loopback(_) | Peer::Other(_) => false,
            Peer::Unix(owner) => {
                let us = rustix::process::geteuid().as_raw();
                owner.user() == Some(us) || self.name(owner)
            }
        }
    }

    fn name(&self, owner: Owner) -> bool {
        owner.user().is_some_and(|uid| self.uids.contains(&uid))
            || owner.group().is_some_and(|gid| self.gids.contains(&gid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn included(uids: &[u32], gids: &[u32], peer: Peer) -> bool {
        let settings = Settings {
            uids: uids.to_vec(),
            gids: gids.to_vec(),
            ..Settings::default()
        };
        Operators::new(&settings).include(peer)
    }

    #[test]
    fn the_record_is_changed_by_our_own_user_and_those_who_are_named() {
        let operators = |uids: &[u32], gids: &[u32]| {
            Operators::new(&Settings {
                uids: uids.to_vec(),
                gids: gids.to_vec(),
                ..Settings::default()
            })
        };
        let us = rustix::process::geteuid().as_raw();
        let peer = |uid, gid| Peer::Unix(Owner { uid, gid });
        assert!(operators(&[], &[]).may_edit(peer(us, 7)));
        let other = us + 1000;
        assert!(
            !operators(&[], &[]).may_edit(peer(other, 7)),
            "whoever may connect may not"
        );
        assert!(operators(&[other], &[]).may_edit(peer(other, 7)));
        assert!(operators(&[], &[7]).may_edit(peer(other, 7)));
        assert!(!operators(&[], &[8]).may_edit(peer(other, 7)));
        let unmapped = peer(u32::MAX, u32::MAX);
        assert!(!operators(&[u32::MAX], &[u32::MAX]).may_edit(unmapped));
        for port in ["127.0.0.1:1", "10.1.2.3:1"] {
            let address = port.parse().unwrap();
            assert!(!operators(&[us], &[]).may_edit(Peer::Loopback(address)));
            assert!(!operators(&[us], &[]).may_edit(Peer::Other(address)));
        }
    }

    #[test]
    fn a_named_user_or_group_is_answered_and_nobody_else_on_a_socket() {
        let peer = Peer::Unix(Owner {
            uid: 1000,
            gid: 2000,
        });
        assert!(included(&[], &[], peer));
        assert!(included(&[7, 1000], &[], peer));
        assert!(included(&[7], &[2000], peer));
        assert!(!included(&[7], &[], peer));
        assert!(!included(&[], &[7], peer));
        assert!(!included(&[2000], &[1000], peer));
        let root = Peer::Unix(Owner { uid: 0, gid: 0 });
        assert!(!included(&[1000], &[], root), "root is named like others");
        // Numbers that the kernel shows of whoever has none here are no names, whatever the settings say.
        let unmapped = Peer::Unix(Owner {
            uid: u32::MAX,
            gid: u32::MAX,
        });
        assert!(!included(&[u32::MAX], &[u32::MAX], unmapped));
        let port = Peer::Loopback("127.0.0.1:1".parse().unwrap());
        assert!(included(&[1000], &[], port));
    }
}
