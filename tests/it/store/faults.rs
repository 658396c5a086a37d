//! Tests of the fault store itself.

use promptkeep::{entry::Selector, store::Op};
use tokio::task::yield_now;

use super::{suite::memory, *};
use crate::fault_store::{Calls, Fault, FaultStore};

#[tokio::test]
async fn fails_the_nth_call_of_one_operation() {
    let store = FaultStore::new(memory());
    store.plan(Op::Put, Calls::Nth(2), Fault::Fail);
    put(&store, entry(1)).await;
    let failed = store.put(Arc::new(entry(2)), Durability::Durable).await.unwrap_err();
    assert_eq!(failed.to_string(), "store put failed: injected");
    put(&store, entry(3)).await;
    assert_eq!((store.calls(Op::Put), store.calls(Op::Get), store.entries()), (3, 0, 2));
}

#[tokio::test]
async fn performs_the_call_whose_reply_is_lost() {
    let store = FaultStore::new(memory());
    store.plan(Op::Remove, Calls::From(1), Fault::FailAfter);
    put(&store, entry(1)).await;
    store.remove(&Selector::default(), false).await.unwrap_err();
    assert_eq!(store.entries(), 0);
    store.heal();
    store.remove(&Selector::default(), false).await.unwrap();
}

#[tokio::test]
async fn hangs_until_released() {
    let store = Arc::new(FaultStore::new(memory()));
    store.plan(Op::Get, Calls::From(1), Fault::Hang);
    let hanging = tokio::spawn({
        let store = store.clone();
        async move { store.get(entry(1).key).await }
    });
    while store.calls(Op::Get) == 0 {
        yield_now().await;
    }
    assert!(!hanging.is_finished());
    store.release(1);
    assert_eq!(hanging.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn delays_a_call_by_the_runtime_clock() {
    let store = FaultStore::new(memory());
    store.plan(Op::Flush, Calls::Nth(1), Fault::Delay(HOUR));
    let waited = tokio::time::timeout(Duration::from_millis(1), store.flush()).await;
    assert!(waited.is_err());
    store.flush().await.unwrap();
}
