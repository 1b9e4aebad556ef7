use proptest::prelude::*;

use super::*;

fn id(n: u128) -> MessageId {
    MessageId::from_u128(n)
}

fn marks(delivered: u128, read: Option<u128>) -> Watermarks {
    Watermarks {
        delivered: Some(id(delivered)),
        read: read.map(id),
    }
}

const UNKNOWN: Result<Option<Watermarks>, ReadError> = Err(ReadError::UnknownMessage);

#[test]
fn delivered_follows_places_not_ids() {
    let mut receipts = Receipts::default();
    assert_eq!(receipts.delivered(id(9), 4), Some(marks(9, None)));
    // Another device with a slow clock.
    assert_eq!(receipts.delivered(id(3), 6), Some(marks(3, None)));
    assert_eq!(receipts.delivered(id(9), 4), None);
    assert_eq!(receipts.delivered(id(3), 6), None);
}

#[test]
fn a_read_is_believed_as_far_as_it_can_be() {
    let one = SenderDevices::One;
    let mut receipts = Receipts::default();
    assert_eq!(receipts.read(id(1), None, one), UNKNOWN);
    receipts.delivered(id(5), 5);
    assert_eq!(receipts.read(id(6), None, one), UNKNOWN);
    assert_eq!(receipts.read(id(3), None, one), Ok(Some(marks(5, Some(3)))));
    assert_eq!(receipts.read(id(2), None, one), Ok(None));
    assert_eq!(receipts.read(id(5), None, one), Ok(Some(marks(5, Some(5)))));
    // Still in the mailbox, so it exists, and what was read was delivered.
    assert_eq!(
        receipts.read(id(7), Some(7), one),
        Ok(Some(marks(7, Some(7))))
    );
    assert_eq!(receipts.delivered(id(6), 6), None);
    assert_eq!(receipts.watermarks(), marks(7, Some(7)));
}

#[test]
fn ids_of_several_devices_prove_no_order() {
    let several = SenderDevices::Several;
    let mut receipts = Receipts::default();
    assert_eq!(receipts.read(id(1), None, several), UNKNOWN);
    receipts.delivered(id(5), 5);
    assert_eq!(receipts.read(id(3), None, several), Ok(None));
    assert_eq!(receipts.read(id(6), None, several), Ok(None));
    assert_eq!(
        receipts.read(id(5), None, several),
        Ok(Some(marks(5, Some(5))))
    );
    assert_eq!(
        receipts.read(id(1), Some(6), several),
        Ok(Some(marks(1, Some(1))))
    );
}

#[test]
fn a_replayed_read_takes_nothing_back() {
    let mut receipts = Receipts::default();
    receipts.delivered(id(9), 9);
    receipts.restore(marks(8, Some(8)), 8, 8);
    assert_eq!(receipts.watermarks(), marks(9, Some(8)));
    assert_eq!(receipts.places(), (9, 8));
    let mut receipts = Receipts::new(marks(8, None));
    assert_eq!(receipts.delivered(id(7), 1), Some(marks(7, None)));
    receipts.restore(marks(9, Some(9)), 9, 9);
    assert_eq!(receipts.watermarks(), marks(9, Some(9)));
}

proptest! {
    /// Messages with ids in any order at places 1 to n; acknowledgements and reads arrive
    /// repeated and out of order. Watermarks only move forward in the order of places, never
    /// beyond what was acknowledged or is held, and `read` never beyond `delivered`.
    #[test]
    fn watermarks_are_monotonic_and_true(
        ids in Just((1u128..=12).collect::<Vec<_>>()).prop_shuffle(),
        ordered in any::<bool>(),
        events in prop::collection::vec((0usize..14, 0u8..3), 0..60),
    ) {
        let mut ids = ids;
        let devices = if ordered { SenderDevices::One } else { SenderDevices::Several };
        if ordered {
            ids.sort_unstable();
        }
        let place = |mark: Option<MessageId>| {
            mark.map_or(Some(0), |mark| ids.iter().position(|n| id(*n) == mark).map(|at| at + 1))
        };
        let mut receipts = Receipts::default();
        let (mut acked, mut before) = (0, (0, 0));
        for (at, event) in events {
            // Beyond the ids there are: a message that never was.
            let n = ids.get(at).copied().unwrap_or(100 + at as u128);
            let exists = at < ids.len();
            let result = match event {
                0 if exists => {
                    acked = acked.max(at + 1);
                    Ok(receipts.delivered(id(n), at as Seq + 1))
                }
                1 if exists && at >= acked => receipts.read(id(n), Some(at as Seq + 1), devices),
                _ => receipts.read(id(n), None, devices),
            };
            if event == 1 && exists && at >= acked {
                acked = at + 1;
            }
            let now = receipts.watermarks();
            let now = (place(now.delivered), place(now.read));
            prop_assert!(now.0.is_some() && now.1.is_some(), "a watermark that never was sent");
            let now = (now.0.unwrap_or(0), now.1.unwrap_or(0));
            prop_assert!(now.0 >= before.0 && now.1 >= before.1, "{before:?} then {now:?}");
            prop_assert!(now.1 <= now.0 && now.0 <= acked);
            prop_assert_eq!(now.0, acked);
            prop_assert_eq!(matches!(result, Ok(Some(_))), now != before);
            before = now;
        }
    }
}
