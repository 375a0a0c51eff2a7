//! What every register must do; run against each of them.

pub(in crate::record) mod model;

use super::*;
use crate::record::memory::MemoryRegister;
use std::sync::Arc;

fn numbered(number: u64) -> Record {
    Record {
        revision: number,
        ..lived()
    }
}

async fn found(register: &dyn Register) -> Option<(u64, Version)> {
    let loaded = register.load().await.unwrap();
    assert_eq!(loaded.moved_aside, None);
    loaded
        .found
        .map(|(record, version)| (record.revision, version))
}

fn done(swapped: Swapped) -> Version {
    match swapped {
        Swapped::Done(version) => version,
        other => panic!("{other:?}"),
    }
}

/// The suite. `first` and `second` look at one and the same empty cell.
pub(in crate::record) async fn conforms(first: Arc<dyn Register>, second: Arc<dyn Register>) {
    assert_eq!(found(&*first).await, None);
    let stale = Some(Version(b"never seen".to_vec()));
    assert!(matches!(
        first.swap(stale, numbered(1)).await,
        Swapped::Conflict
    ));
    assert_eq!(found(&*second).await, None, "a conflict writes nothing");

    let one = done(first.swap(None, numbered(1)).await);
    assert_eq!(found(&*second).await, Some((1, one.clone())));
    assert!(matches!(
        second.swap(None, numbered(2)).await,
        Swapped::Conflict
    ));
    let two = done(second.swap(Some(one.clone()), numbered(2)).await);
    assert_ne!(one, two);
    assert!(matches!(
        first.swap(Some(one), numbered(3)).await,
        Swapped::Conflict
    ));
    assert_eq!(found(&*first).await, Some((2, two)));

    for round in 10..20 {
        let (_, seen) = found(&*first).await.unwrap();
        let mut racers = tokio::task::JoinSet::new();
        for racer in 0..8 {
            let register = Arc::clone(if racer % 2 == 0 { &first } else { &second });
            let seen = seen.clone();
            let next = numbered(round * 100 + racer);
            racers.spawn(async move { (racer, register.swap(Some(seen), next).await) });
        }
        let swaps = racers.join_all().await;
        let won: Vec<u64> = swaps
            .iter()
            .filter(|(_, swapped)| matches!(swapped, Swapped::Done(_)))
            .map(|(racer, _)| round * 100 + racer)
            .collect();
        assert!(
            swaps
                .iter()
                .all(|(_, swapped)| matches!(swapped, Swapped::Done(_) | Swapped::Conflict))
        );
        assert_eq!(won.len(), 1, "{swaps:?}");
        assert_eq!(found(&*second).await.unwrap().0, won[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_register_conforms() {
    let register = Arc::new(MemoryRegister::new());
    conforms(Arc::clone(&register) as Arc<dyn Register>, register).await;
}
